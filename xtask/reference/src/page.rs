//! Markdown, as little of it as the pages need.

/// The first line of every page.
pub(crate) const MARK: &str =
    "<!-- Made by `cargo xtask generate` from tables in the code. Do not edit. -->\n\n";

/// A page with a title and a text under it.
pub(crate) fn start(title: &str, text: &str) -> String {
    format!("{MARK}# {title}\n\n{}\n", text.trim())
}

/// Adds a heading and, if there is one, a text.
pub(crate) fn section(page: &mut String, title: &str, text: &str) {
    page.extend(["\n## ", title, "\n"]);
    if !text.trim().is_empty() {
        page.extend(["\n", text.trim(), "\n"]);
    }
}

/// Adds a table.
pub(crate) fn table<const N: usize>(
    page: &mut String,
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    page.push('\n');
    page.push_str(&line(&head.map(str::to_owned)));
    page.push_str(&line(&head.map(|_| "---".to_owned())));
    for row in rows {
        page.push_str(&line(&row.map(|cell| cell.replace('|', "\\|"))));
    }
}

/// A word as code.
pub(crate) fn code(word: &str) -> String {
    format!("`{word}`")
}
