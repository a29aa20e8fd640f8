//! How much to read from a socket at once.

/// Most requests and answers in one piece.
const LEAST: usize = 8 * 1024;
/// A piece of an upload whose call to the kernel is cheap beside its copy.
const MOST: usize = 64 * 1024;

/// Bytes to ask for: a read that fills them doubles them, and one that is small by comparison halves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadSize(usize);

impl ReadSize {
    /// Whatever it has grown to, it is at least this.
    pub(crate) const LEAST: Self = Self(LEAST);

    /// What to ask for.
    pub(crate) fn bytes(self) -> usize {
        self.0
    }

    /// So many bytes came.
    pub(crate) fn came(&mut self, n: usize) {
        if n >= self.0 {
            self.0 = (self.0 * 2).min(MOST);
        } else if n < self.0 / 4 {
            self.0 = (self.0 / 2).max(LEAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_with_an_upload_and_shrink_after_it() {
        let mut size = ReadSize::LEAST;
        for expected in [16, 32, 64, 64] {
            size.came(size.bytes());
            assert_eq!(size.bytes(), expected * 1024);
        }
        size.came(20 * 1024);
        assert_eq!(size.bytes(), MOST, "a pause of the client");
        for expected in [32, 16, 8, 8] {
            size.came(100);
            assert_eq!(size.bytes(), expected * 1024);
        }
    }
}
