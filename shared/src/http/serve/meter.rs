//! Counting the frames of an HTTP/2 client that carry nothing.
//!
//! h2 bounds resets of streams that nobody has taken yet, resets of its own, CONTINUATION and small DATA frames. It has no bound on
//! PING, SETTINGS, PRIORITY, `WINDOW_UPDATE`, unknown frames, or requests that are taken back as soon as they are taken: each costs
//! a client nothing and us a little. So each is paid for from an allowance, which time and what the client is sent fill up again.
//! Whoever has spent it is cut off.
//!
//! Pure: bytes and a clock in, an error out. Source of the framing: RFC 9113 section 4.1.

use tokio::time::Instant;

use super::begin::PREFACE;

/// Frames without content that a client may send at once. Go's server allows as many control frames to wait; nobody who means
/// well comes near.
const BURST: u64 = 10_000;
/// Milliseconds in which one more is allowed: a thousand each second are a matter of a few per cent of a core.
const REFILL_MS: u64 = 1;
/// Bytes sent to the client for which one more is allowed: it opens its windows for what it gets, which takes two frames for each of
/// ours at most. The answer to a PING has 17 bytes, so that pinging does not pay for itself.
const CREDIT_BYTES: u64 = 32;

const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;

/// The client sends too many frames that carry nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {BURST} frames that carry nothing")]
pub(super) struct Flood;

/// Follows the frames of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    /// Bytes to come that are no frame's header.
    skip: usize,
    /// The beginning of a frame's header.
    header: [u8; HEADER_BYTES],
    have: usize,
    allowance: u64,
    filled: Instant,
    /// Bytes sent that were no credit yet.
    sent: u64,
}

impl Meter {
    /// Of a connection whose preface is still to be read.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE.len(),
            header: [0; HEADER_BYTES],
            have: 0,
            allowance: BURST,
            filled: now,
            sent: 0,
        }
    }

    /// The client has sent `bytes`. `now` is asked for only when the allowance is spent.
    ///
    /// # Errors
    /// When it is spent and there is no further one.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Flood> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER_BYTES - self.have).min(bytes.len());
            let (head, rest) = bytes.split_at(taken);
            self.header[self.have..self.have + taken].copy_from_slice(head);
            self.have += taken;
            bytes = rest;
            if self.have < HEADER_BYTES {
                return Ok(());
            }
            self.have = 0;
            let [high, middle, low, kind, ..] = self.header;
            self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            // h2 looks after the small ones of these. An empty one is not worth more than a PING.
            let carries = matches!(kind, HEADERS | CONTINUATION) || kind == DATA && self.skip > 0;
            if !carries {
                self.spend(&now)?;
            }
        }
    }

    /// The client was sent so many bytes.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
        self.allowance = (self.allowance + self.sent / CREDIT_BYTES).min(BURST);
        self.sent %= CREDIT_BYTES;
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> Result<(), Flood> {
        if self.allowance == 0 {
            let now = now();
            let passed = now.duration_since(self.filled).as_millis();
            self.filled = now;
            self.allowance = u64::try_from(passed)
                .unwrap_or(u64::MAX)
                .saturating_div(REFILL_MS)
                .min(BURST);
        }
        self.allowance = self.allowance.checked_sub(1).ok_or(Flood)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::*;

    const PING: u8 = 6;
    const RST_STREAM: u8 = 3;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let size = u32::try_from(length).unwrap().to_be_bytes();
        let mut frame = vec![size[1], size[2], size[3], kind, 0, 0, 0, 0, 1];
        frame.resize(HEADER_BYTES + length, 0xff);
        frame
    }

    /// How many of `frame` are let through at once, up to a hundred thousand.
    fn passed(meter: &mut Meter, frame: &[u8], now: Instant) -> u64 {
        (0..100_000)
            .take_while(|_| meter.read(frame, || now).is_ok())
            .count() as u64
    }

    fn begun(now: Instant) -> Meter {
        let mut meter = Meter::new(now);
        meter.read(PREFACE, || now).unwrap();
        meter
    }

    #[test]
    fn frames_that_carry_nothing_are_counted_and_no_others() {
        let now = Instant::now();
        for (kind, length) in [
            (PING, 8),
            (RST_STREAM, 4),
            (4, 0),
            (8, 4),
            (2, 5),
            (200, 99),
        ] {
            assert_eq!(passed(&mut begun(now), &frame(kind, length), now), BURST);
        }
        assert_eq!(passed(&mut begun(now), &frame(DATA, 0), now), BURST);
        for (kind, length) in [(DATA, 1), (HEADERS, 0), (HEADERS, 50), (CONTINUATION, 9)] {
            assert_eq!(passed(&mut begun(now), &frame(kind, length), now), 100_000);
        }
    }

    #[test]
    fn it_does_not_matter_how_the_bytes_are_cut() {
        let now = Instant::now();
        let bytes = [PREFACE, &frame(DATA, 300), &frame(PING, 8), &frame(4, 12)].concat();
        for size in [1, 2, 7, 9, 24, 1_000] {
            let mut meter = Meter::new(now);
            for piece in bytes.chunks(size) {
                meter.read(piece, || now).unwrap();
            }
            assert_eq!(meter.allowance, BURST - 2, "pieces of {size}");
        }
    }

    #[test]
    fn time_fills_the_allowance_up_again_but_never_beyond_a_burst() {
        let start = Instant::now();
        let mut meter = begun(start);
        // Without a payload, so that the one that is refused leaves nothing to be skipped.
        let settings = frame(4, 0);
        assert_eq!(passed(&mut meter, &settings, start), BURST);
        let later = start + Duration::from_millis(500);
        assert_eq!(passed(&mut meter, &settings, later), 500);
        let late = later + Duration::from_hours(1);
        assert_eq!(passed(&mut meter, &settings, late), BURST);
    }

    #[test]
    fn who_is_sent_something_may_open_windows_for_it_and_pings_do_not_pay_for_themselves() {
        let now = Instant::now();
        let mut meter = begun(now);
        for _ in 0..100_000 {
            // A small frame of ours, and both windows opened for it.
            meter.sent(HEADER_BYTES + 55);
            meter.read(&frame(8, 4), || now).unwrap();
            meter.read(&frame(8, 4), || now).unwrap();
        }
        let mut meter = begun(now);
        let pings = (0..100_000)
            .take_while(|_| {
                meter.sent(HEADER_BYTES + 8);
                meter.read(&frame(PING, 8), || now).is_ok()
            })
            .count() as u64;
        assert!(pings < 3 * BURST, "{pings}");
    }
}
