//! Prints the reference pages that are made from tables in the code, as JSON: a file's name to its text.
//!
//! `cargo xtask generate` builds and runs this. It is a program of its own so that the other chores, which are needed most
//! when something does not compile, depend on none of what they check.

mod annotations;
mod config;
mod errors;
mod headers;
mod metrics;
mod page;
mod request_log;

use std::io::{self, Write as _};

use serde_json::{Map, Value};

fn main() -> io::Result<()> {
    let pages: Map<String, Value> = pages()
        .into_iter()
        .map(|(file, text)| (file.to_owned(), Value::String(text)))
        .collect();
    writeln!(io::stdout(), "{}", Value::Object(pages))
}

/// Every page: its file in `docs/reference`, and its text.
fn pages() -> [(&'static str, String); 6] {
    [
        ("annotations.md", annotations::page()),
        ("config.md", config::page()),
        ("errors.md", errors::page()),
        ("headers.md", headers::page()),
        ("metrics.md", metrics::page()),
        ("request-log.md", request_log::page()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_marked_and_its_tables_are_whole() {
        for (file, text) in pages() {
            assert!(text.starts_with(page::MARK), "{file}");
            assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{file}");
            assert!(text.lines().all(|line| line == line.trim_end()), "{file}");
            let mut columns = None;
            for line in text.lines() {
                if !line.starts_with('|') {
                    columns = None;
                    continue;
                }
                let count = line.replace("\\|", "").matches('|').count();
                assert_eq!(*columns.get_or_insert(count), count, "{file}: {line}");
            }
        }
    }

    #[test]
    fn nothing_of_the_tables_is_left_out() {
        let [annotations, config, errors, headers, metrics, log] = pages().map(|(_, text)| text);
        for key in autoscaler_core::annotations::ALL {
            assert!(
                annotations.contains(&format!("| `{}`", key.name)),
                "{}",
                key.name
            );
            assert!(key.alias.is_none_or(|alias| annotations.contains(alias)));
        }
        for setting in autoscaler_core::SETTINGS {
            assert!(config.contains(&format!("| `{}` |", setting.name)));
        }
        for row in activator::contract()
            .into_iter()
            .chain(queue_proxy::contract())
        {
            assert!(errors.contains(&format!("| `{}` |", row.code)));
        }
        for header in shared::headers::described() {
            assert!(headers.contains(&format!("| `{}` |", header.name)));
        }
        for metric in shared::metrics::ALL {
            assert!(metrics.contains(&format!("| `{}` |", metric.name)));
        }
        for field in shared::record::FIELDS {
            assert!(log.contains(&format!("| `{}` |", field.name)));
        }
    }
}
