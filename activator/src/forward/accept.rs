//! What a client says in `Accept`. Source: RFC 9110, section 12.5.1.

use http::{HeaderMap, header::ACCEPT};

/// A weight in thousandths.
type Weight = u16;

/// Media ranges with their weights, parameters other than the weight left out. What has a weight that is none is not accepted.
fn ranges(headers: &HeaderMap) -> impl Iterator<Item = (&str, Weight)> {
    let values = headers.get_all(ACCEPT).iter();
    let entries = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','));
    entries.map(|entry| {
        let mut parts = entry.split(';').map(str::trim);
        let range = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        (
            range,
            weight.map_or(1_000, |text| thousandths(text).unwrap_or(0)),
        )
    })
}

/// `0`, `1`, or either with up to three digits behind a point; not above 1.
fn thousandths(text: &str) -> Option<Weight> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if !matches!(whole, "0" | "1") || rest.len() > 3 || !rest.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let weight = format!("{whole}{rest:0<3}").parse().ok()?;
    (weight <= 1_000).then_some(weight)
}

/// Whether `kind` is named, in full, with a weight above 0.
pub(super) fn includes(headers: &HeaderMap, kind: &str) -> bool {
    ranges(headers).any(|(range, weight)| weight > 0 && range.eq_ignore_ascii_case(kind))
}

/// Whether `kind` is named, in full, and nothing is wanted more. Ties do not count against it: browsers name images beside
/// pages, with the same weight.
pub(super) fn prefers(headers: &HeaderMap, kind: &str) -> bool {
    let most = ranges(headers).map(|(_, weight)| weight).max();
    ranges(headers).any(|(range, weight)| {
        weight > 0 && Some(weight) == most && range.eq_ignore_ascii_case(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROME: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,\
         application/signed-exchange;v=b3;q=0.7";

    fn headers(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| (ACCEPT, value.parse().unwrap()));
        let mut all = HeaderMap::new();
        values.for_each(|(name, value)| {
            all.append(name, value);
        });
        all
    }

    #[test]
    fn a_page_is_preferred_where_it_is_named_and_nothing_weighs_more() {
        for (values, preferred) in [
            (&[CHROME][..], true),
            (&["text/html"], true),
            (&["TEXT/HTML ; charset=utf-8 ; Q=0.4"], true),
            (&["application/json;q=0.3", "text/html;q=0.30"], true),
            (&["application/json;q=0.31, text/html;q=0.3"], false),
            (&["application/json, text/html;q=0.9"], false),
            (&["text/html;q=0.9, */*"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=high, text/plain;q=0"], false),
            (&["text/html;q=1.001"], false),
            (&["*/*"], false),
            (&["text/*"], false),
            (&[""], false),
            (&[], false),
        ] {
            assert_eq!(
                prefers(&headers(values), "text/html"),
                preferred,
                "{values:?}"
            );
        }
    }

    #[test]
    fn an_event_stream_is_accepted_only_by_its_name() {
        for (values, included) in [
            (&["text/event-stream"][..], true),
            (&["application/json, text/event-stream;q=0.1"], true),
            (&["application/json", "Text/Event-Stream"], true),
            (&["text/event-stream;q=0.000"], false),
            (&["text/*, */*"], false),
            (&[], false),
        ] {
            assert_eq!(
                includes(&headers(values), "text/event-stream"),
                included,
                "{values:?}"
            );
        }
    }
}
