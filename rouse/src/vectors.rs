//! `rouse vectors`: finds the files, has them replayed, and prints what came of it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use vectors::{Report, replay};

use crate::cli::fail;

/// Differences of one file that are printed: whoever has more of them has one cause for most.
const SHOWN: usize = 50;

/// What to replay.
#[derive(Debug, Parser)]
pub struct Args {
    /// A folder with vector files (*.json), or such files.
    #[arg(required = true, num_args = 1.., value_name = "DIR")]
    paths: Vec<PathBuf>,
}

/// Runs the command.
pub fn main(args: &Args) -> ExitCode {
    let texts = match read(&args.paths) {
        Ok(texts) => texts,
        Err(error) => return fail(2, &error),
    };
    let mut failed = false;
    let mut out = io::stdout().lock();
    for (name, text) in &texts {
        let report = replay(name, text);
        failed |= report.failed() > 0;
        if let Err(error) = show(&report, &mut out) {
            return fail(1, &format!("cannot print: {error}"));
        }
    }
    ExitCode::from(u8::from(failed))
}

/// All files' names and texts, before anything is replayed.
fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>, String> {
    let mut texts = Vec::new();
    for path in paths {
        for file in files(path)? {
            let text = fs::read_to_string(&file).map_err(|error| cannot_read(&file, &error))?;
            let name = file.file_name().unwrap_or(file.as_os_str());
            texts.push((name.to_string_lossy().into_owned(), text));
        }
    }
    Ok(texts)
}

/// The file itself, or the vector files in a folder by name.
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let about = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
    if !about.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| cannot_read(path, &error))?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    if files.is_empty() {
        return Err(format!(
            "{}: there is no vector file (*.json) in it",
            path.display()
        ));
    }
    Ok(files)
}

fn cannot_read(path: &Path, error: &io::Error) -> String {
    format!("{}: cannot be read: {error}", path.display())
}

/// The summary, each difference, and why groups are not applicable.
fn show(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{report}")?;
    for difference in report.differences.iter().take(SHOWN) {
        writeln!(out, "  {difference}")?;
    }
    match report.differences.len().saturating_sub(SHOWN) {
        0 => {}
        more => writeln!(out, "  and {more} more differences")?,
    }
    for (why, (groups, count)) in reasons(report) {
        let groups = groups.join(", ");
        writeln!(out, "  {count} not applicable ({groups}): {why}")?;
    }
    Ok(())
}

/// The reasons why cases are not applicable, each with its groups and how many cases they are.
fn reasons(report: &Report) -> BTreeMap<&'static str, (Vec<&str>, usize)> {
    let mut reasons: BTreeMap<_, (Vec<&str>, usize)> = BTreeMap::new();
    for (group, tally) in &report.groups {
        if let Some(why) = tally.why {
            let (groups, count) = reasons.entry(why).or_default();
            groups.push(group);
            *count += tally.not_applicable;
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed of a file with these cases.
    fn printed(text: &str) -> String {
        let mut out = Vec::new();
        show(&replay("window.json", text), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn differences_are_printed_up_to_a_bound_and_the_rest_is_counted() {
        let case = r#"{"id": "a", "group": "new"}"#;
        let cases = vec![case; SHOWN + 7].join(",");
        let printed = printed(&format!(r#"{{"cases": [{cases}]}}"#));
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines.len(), SHOWN + 2);
        assert_eq!(lines[0], "window.json: 0 passed, 57 failed");
        assert_eq!(lines[1], "  a: window has no group \"new\"");
        assert_eq!(lines[SHOWN + 1], "  and 7 more differences");
    }

    #[test]
    fn groups_without_a_counterpart_are_told_with_the_reason() {
        let text = r#"{"about": {"topic": "buckets"}, "cases": [{"id": "a", "group": "names"}, {"id": "b", "group": "owner"},
            {"id": "c", "group": "owner"}]}"#;
        assert_eq!(
            printed(text),
            "window.json: 0 passed, 0 failed, 3 not applicable\n  3 not applicable (names, owner): One autoscaler leads, by one \
             Lease, and decides for all workloads: there are no buckets to be owned.\n"
        );
    }

    #[test]
    fn only_vector_files_of_a_folder_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let error = files(path).unwrap_err();
        assert!(
            error.ends_with("there is no vector file (*.json) in it"),
            "{error}"
        );
        for name in ["b.json", "README.md", "a.json"] {
            fs::write(path.join(name), name).unwrap();
        }
        let texts = read(&[path.to_owned(), path.join("README.md")]).unwrap();
        let names: Vec<_> = texts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.json", "b.json", "README.md"]);
        let error = read(&[path.join("c.json")]).unwrap_err();
        assert!(error.contains("c.json: cannot be read: "), "{error}");
    }

    #[test]
    fn the_exit_code_tells_agreement_difference_and_bad_input_apart() {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str| {
            let paths = vec![folder.path().join(name)];
            format!("{:?}", main(&Args { paths }))
        };
        let code = |code: u8| format!("{:?}", ExitCode::from(code));
        let good = r#"{"cases": [{"id": "a", "group": "edge", "kind": "linear", "window_ms": 6000, "base_unix_ms": 0,
            "ops": [["r", 0, 4], ["q", 0, 4, false]]}]}"#;
        fs::write(folder.path().join("window.json"), good).unwrap();
        assert_eq!(run("window.json"), code(0));
        fs::write(folder.path().join("broken.json"), &good[..50]).unwrap();
        assert_eq!(run("broken.json"), code(1));
        assert_eq!(run("gone.json"), code(2));
    }
}
