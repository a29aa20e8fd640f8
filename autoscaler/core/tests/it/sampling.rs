//! Every row of the recorded sample sizes.

use autoscaler_core::sample_size;

use crate::support::{cases, count, text};

#[test]
fn agrees_with_knative_on_every_sample_size() {
    let mut rows = 0;
    for case in cases("sample_size.json") {
        assert_eq!(text(&case, "group"), "sample_size");
        for row in case["table"].as_array().expect("table") {
            assert_eq!(
                sample_size(count(&row[0]).get()),
                count(&row[1]).get(),
                "{row}"
            );
            rows += 1;
        }
    }
    assert_eq!(rows, 149);
}
