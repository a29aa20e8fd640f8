//! Labels as they are kept in memory: of each object that is watched, and as few as people give.

use std::collections::BTreeMap;

use litemap::LiteMap;

/// Labels of an object, or the selector of a Service. The first entry of a [`BTreeMap`] of texts takes 544 bytes, and there
/// are some such maps for each workload.
pub type Labels = LiteMap<String, String>;

/// Keeps what an object says; nothing if it says nothing.
pub fn kept(map: Option<&BTreeMap<String, String>>) -> Labels {
    let all = map.into_iter().flatten();
    all.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Whether a Service with this selector selects pods with these labels. One without a selector selects none.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    !selector.is_empty() && have(labels, selector)
}

/// Whether labels have all that is asked for, which may be nothing.
pub fn have(labels: &Labels, asked: &Labels) -> bool {
    let mut asked = asked.iter();
    asked.all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        owned.collect()
    }

    #[test]
    fn a_selector_selects_who_has_all_of_it() {
        let has = labels(&[("app", "iris"), ("tier", "x")]);
        assert!(selects(&labels(&[("app", "iris")]), &has));
        assert!(selects(&has, &has));
        assert!(!selects(&labels(&[("app", "other")]), &has));
        assert!(!selects(&has, &labels(&[("app", "iris")])));
        assert!(!selects(&labels(&[]), &has), "no selector selects nothing");
    }
}
