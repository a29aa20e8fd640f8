//! Making a program's line safe to show.

/// A line as it may be shown: of a progress bar that rewrites itself only the last state; no control characters but tabs
/// and, if `colours`, the sequences that colour text.
pub(crate) fn clean(line: &str, colours: bool) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut kept = String::with_capacity(line.len());
    let mut coloured = false;
    let mut rest = line.chars();
    while let Some(char) = rest.next() {
        if char != '\u{1b}' {
            if char == '\t' || !char.is_control() {
                kept.push(char);
            }
            continue;
        }
        let Some(body) = rest.as_str().strip_prefix('[') else {
            rest.next();
            continue;
        };
        let Some(end) = body.find(|char: char| ('\u{40}'..='\u{7e}').contains(&char)) else {
            break;
        };
        let (parameters, after) = body.split_at(end);
        let colour = after.starts_with('m')
            && parameters
                .chars()
                .all(|char| char.is_ascii_digit() || char == ';');
        if colour && colours {
            kept.extend(["\u{1b}[", parameters, "m"]);
            coloured = !matches!(parameters, "" | "0");
        }
        rest = after[1..].chars();
    }
    if coloured {
        kept.push_str("\u{1b}[0m");
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_survive() {
        for (line, expected, plain) in [
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[1;31mopen", "\u{1b}[1;31mopen\u{1b}[0m", "open"),
            ("\u{1b}[2J\u{1b}[Hgone", "gone", "gone"),
            ("\u{1b}]cut", "cut", "cut"),
            ("bell\u{7}\ttab", "bell\ttab", "bell\ttab"),
            ("10%\r50%\r100%\r", "100%", "100%"),
            ("half\u{1b}[", "half", "half"),
            ("end\u{1b}", "end", "end"),
        ] {
            assert_eq!(clean(line, true), expected, "{line:?}");
            assert_eq!(clean(line, false), plain, "{line:?}");
        }
    }
}
