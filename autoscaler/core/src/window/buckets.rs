//! The numbers of a window. As long as all of them are zero they take no memory: most workloads sleep.

/// A ring of so many numbers.
#[derive(Clone, Debug)]
pub(super) struct Buckets {
    len: usize,
    /// Empty: all are zero.
    values: Box<[f64]>,
}

impl Buckets {
    /// All zero.
    pub(super) fn new(len: usize) -> Self {
        Self {
            len,
            values: Box::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Those up to `index`, and those after it; nothing at all if all are zero.
    pub(super) fn split(&self, index: usize) -> (&[f64], &[f64]) {
        self.values
            .split_at_checked(index + 1)
            .unwrap_or((&[], &[]))
    }

    /// Whether all are known to be zero.
    pub(super) fn is_zero(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn get(&self, index: usize) -> f64 {
        self.values.get(index).copied().unwrap_or(0.0)
    }

    pub(super) fn add(&mut self, index: usize, value: f64) {
        if value == 0.0 {
            return;
        }
        if self.values.is_empty() {
            self.values = vec![0.0; self.len].into();
        }
        self.values[index] += value;
    }

    /// Sets one to zero. Once per turn of the ring it is seen whether all are.
    pub(super) fn clear(&mut self, index: usize) {
        if let Some(value) = self.values.get_mut(index) {
            *value = 0.0;
        }
        if index == 0 && self.values.iter().all(|value| *value == 0.0) {
            self.clear_all();
        }
    }

    pub(super) fn clear_all(&mut self) {
        self.values = Box::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_other_than_zero_take_memory_and_for_a_turn_at_most() {
        let mut buckets = Buckets::new(3);
        buckets.add(2, 0.0);
        assert_eq!((buckets.get(2), buckets.values.len()), (0.0, 0));
        buckets.add(2, 1.5);
        buckets.add(2, 1.0);
        let all: Vec<_> = (0..buckets.len()).map(|at| buckets.get(at)).collect();
        assert_eq!(all, [0.0, 0.0, 2.5]);
        for at in [0, 1, 2] {
            buckets.clear(at);
            assert_eq!(buckets.values.len(), 3, "not looked at yet");
        }
        buckets.clear(0);
        assert_eq!((buckets.get(2), buckets.values.len()), (0.0, 0));
    }
}
