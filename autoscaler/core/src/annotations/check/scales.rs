//! The scales: min, max, activation and initial, each in its range and all fitting together.

use super::super::keys::{self, Key};
use super::Check;
use crate::ClusterConfig;
use crate::literal::{parse_int, parse_int32};

impl Check<'_> {
    /// Min, max and activation scale, and how they fit each other. One that is wrong or absent counts as 0.
    pub(super) fn scales(&mut self, config: &ClusterConfig) {
        let min = self.count(keys::MIN_SCALE);
        let max = self.count(keys::MAX_SCALE);
        if max != 0 && max < min {
            let value = keys::MAX_SCALE
                .value(self.annotations)
                .unwrap_or_default()
                .to_owned();
            let (max_name, min_name) = (keys::MAX_SCALE.name, keys::MIN_SCALE.name);
            self.error(
                max_name,
                &value,
                format!("max-scale={max} is less than min-scale={min}"),
            );
            if let Some(error) = self.errors.last_mut() {
                error.paths.push(min_name.to_owned());
            }
        }
        if let (Some(limit), Some((name, value))) =
            (config.max_scale_limit, self.find(keys::MAX_SCALE))
        {
            if max == 0 {
                self.error(
                    name,
                    &value,
                    format!("max-scale=0 (unlimited), must be less than {limit}"),
                );
            } else if max > i64::from(limit.get()) {
                self.error(name, &value, format!("expected 1 <= {max} <= {limit}"));
            }
        }
        if let Some((name, value)) = self.find(keys::ACTIVATION_SCALE) {
            match parse_int32(&value).map(i64::from) {
                None => self.invalid(keys::ACTIVATION_SCALE, name, &value),
                Some(scale) if scale < min => {
                    self.error(
                        name,
                        &value,
                        format!("min-scale={min} is greater than activation-scale={scale}"),
                    );
                }
                Some(scale) if max != 0 && scale > max => {
                    self.error(
                        name,
                        &value,
                        format!("max-scale={max} is less than activation-scale={scale}"),
                    );
                }
                Some(scale) if scale < 2 => {
                    self.error(
                        name,
                        &value,
                        format!("activation-scale={scale} must be greater than 1"),
                    );
                }
                Some(_) => {}
            }
        }
    }

    /// A count of 31 bits. An integer of any size that does not fit is out of range rather than unreadable.
    fn count(&mut self, key: Key) -> i64 {
        let Some((name, value)) = self.find(key) else {
            return 0;
        };
        match parse_int32(&value) {
            Some(count) if count >= 0 => return i64::from(count),
            None if !is_integer(&value) => self.invalid(key, name, &value),
            _ => self.error(
                name,
                &value,
                format!("expected 0 <= {value} <= {}", i32::MAX),
            ),
        }
        0
    }

    pub(super) fn initial_scale(&mut self, config: &ClusterConfig) {
        let Some((name, value)) = self.find(keys::INITIAL_SCALE) else {
            return;
        };
        let path = match parse_int(&value) {
            None => name.to_owned(),
            Some(scale) if scale < 0 => format!("{name} must be greater than 0"),
            Some(0) if !config.allow_zero_initial_scale => {
                format!("{name}=0 not allowed by cluster")
            }
            Some(_) => return,
        };
        self.invalid(keys::INITIAL_SCALE, name, &value);
        if let Some(error) = self.errors.last_mut() {
            error.paths = vec![path];
        }
    }
}

/// An optional sign and digits, however many.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}
