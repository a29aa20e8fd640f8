//! `cargo xtask generate`: the reference pages that are made from the programs themselves.
//!
//! Pages are committed, so that they can be read without building, and checked, so that they cannot lie. What a page
//! says must depend on the source only: the programs run with an empty environment (their help shows the values of
//! environment variables) and at a fixed width.
//!
//! There are two kinds of page: the help of each program, and what the program [`TABLES`] prints of the tables in the
//! code. The latter is a program of its own, so that this one depends on nothing that it checks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::metadata::Metadata;
use crate::{cargo, report};

/// The programs that have a page of flags, once they exist.
const PROGRAMS: [&str; 5] = [
    "rouse",
    "rouse-activator",
    "rouse-autoscaler",
    "rouse-load",
    "rouse-queue-proxy",
];

/// The program that prints the pages made from tables, as one JSON object of file names and texts.
const TABLES: &str = "reference";

/// How every page of ours begins: a file that begins so and that nothing generates is stale.
const MARK: &str = "<!-- Made by `cargo xtask generate`";

/// Columns of the help texts. Fits a code block on a web page without scrolling.
const WIDTH: &str = "100";

/// No program of ours nests commands deeper; a cycle in what a program prints must not keep us busy.
const MAX_DEPTH: usize = 4;

/// A file and what should be in it.
#[derive(Debug)]
struct Page {
    file: String,
    text: String,
}

pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let metadata = Metadata::load()?;
    let folder = metadata.root.join("docs/reference");
    cargo::run(&metadata.root, &cargo::EVERYTHING)?;
    let mut pages = flags(&metadata)?;
    pages.extend(tables(&metadata)?);
    let stale = stale(&folder, &pages)?;
    if check {
        let lines: Vec<_> = stale
            .iter()
            .map(|file| format!("docs/reference/{file}"))
            .collect();
        return report::conclude(
            &lines,
            "stale pages, to be updated by `cargo xtask generate`",
            "no page is stale",
        );
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for file in &stale {
        let path = folder.join(file);
        match pages.iter().find(|page| page.file == *file) {
            Some(page) => fs::write(&path, &page.text),
            None => fs::remove_file(&path),
        }
        .with_context(|| format!("cannot update {}", path.display()))?;
        report::line(format_args!("updated docs/reference/{file}"));
    }
    report::line(format_args!("{} pages are up to date", pages.len()));
    Ok(())
}

/// The pages whose file differs, and the files that no page stands for any more.
fn stale(folder: &Path, pages: &[Page]) -> anyhow::Result<Vec<String>> {
    let mut stale: Vec<String> = pages
        .iter()
        .filter(|page| {
            fs::read_to_string(folder.join(&page.file)).ok().as_ref() != Some(&page.text)
        })
        .map(|page| page.file.clone())
        .collect();
    if folder.is_dir() {
        for entry in
            fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_ours =
                || fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with(MARK));
            if pages.iter().all(|page| page.file != name) && is_ours() {
                stale.push(name);
            }
        }
    }
    stale.sort();
    Ok(stale)
}

/// One page per program: its help, and that of its commands.
fn flags(metadata: &Metadata) -> anyhow::Result<Vec<Page>> {
    let members = metadata.members();
    let exists = |program: &&str| {
        members
            .iter()
            .any(|member| member.bins.iter().any(|bin| bin == program))
    };
    let programs: Vec<&str> = PROGRAMS.into_iter().filter(exists).collect();
    programs
        .into_iter()
        .map(|program| {
            let mut sections = Vec::new();
            let binary = metadata.target_directory.join("debug").join(program);
            let ask = |command: &[String]| help(&binary, command);
            collect(program, &mut Vec::new(), &ask, &mut sections)?;
            Ok(Page {
                file: format!("flags-{program}.md"),
                text: render(program, &sections),
            })
        })
        .collect()
}

/// The pages made from tables.
fn tables(metadata: &Metadata) -> anyhow::Result<Vec<Page>> {
    let binary = metadata.target_directory.join("debug").join(TABLES);
    let output = Command::new(&binary)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    ensure!(
        output.status.success(),
        "{} failed ({})",
        binary.display(),
        output.status
    );
    let pages: BTreeMap<String, String> = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{} did not print pages", binary.display()))?;
    let pages = pages.into_iter().map(|(file, text)| Page { file, text });
    Ok(pages.collect())
}

/// Asks for the help of a command, then for that of each command it lists.
fn collect(
    program: &str,
    command: &mut Vec<String>,
    ask: &impl Fn(&[String]) -> anyhow::Result<String>,
    sections: &mut Vec<(String, String)>,
) -> anyhow::Result<()> {
    let text = ask(command)?;
    let title = std::iter::once(program)
        .chain(command.iter().map(String::as_str))
        .collect::<Vec<_>>()
        .join(" ");
    let inner = commands(&text);
    sections.push((title, text));
    if command.len() < MAX_DEPTH {
        for name in inner {
            command.push(name);
            collect(program, command, ask, sections)?;
            command.pop();
        }
    }
    Ok(())
}

/// Runs `PROGRAM COMMAND --help`.
fn help(binary: &PathBuf, command: &[String]) -> anyhow::Result<String> {
    let words = std::iter::once(binary.display().to_string()).chain(command.iter().cloned());
    let shown = words.collect::<Vec<_>>().join(" ") + " --help";
    let output = Command::new(binary)
        .args(command)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", WIDTH)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} failed ({})",
        output.status
    );
    let text =
        String::from_utf8(output.stdout).with_context(|| format!("{shown} did not print text"))?;
    ensure!(!text.trim().is_empty(), "{shown} printed nothing");
    Ok(text)
}

/// The names in the list of commands of a help text: the lines indented by exactly two columns.
fn commands(help: &str) -> Vec<String> {
    help.lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| {
            line.strip_prefix("  ")
                .filter(|rest| !rest.starts_with(' '))
        })
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

fn render(program: &str, sections: &[(String, String)]) -> String {
    let mut page = format!("{MARK} from the program's own help. Do not edit. -->\n\n# {program}\n");
    for (title, text) in sections {
        page.extend(["\n## `", title, "`\n\n```text\n"]);
        for line in text.trim().lines() {
            page.push_str(line.trim_end());
            page.push('\n');
        }
        page.push_str("```\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP: &str = "What it is\n\nUsage: tool <COMMAND>\n\nCommands:\n  local  Run it here\n           and now\n  help   Print this\n\nOptions:\n  -h, --help  Print help\n";

    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands in for running a program, which can fail"
    )]
    fn ask(command: &[String]) -> anyhow::Result<String> {
        Ok(match command.join(" ").as_str() {
            "" => TOP.to_owned(),
            "local" => "Run it here\n\nCommands:\n  now\n          At once\n\nOptions:\n  -q  \n"
                .to_owned(),
            other => format!("help of {other}"),
        })
    }

    #[test]
    fn finds_the_commands_in_a_help_text() {
        assert_eq!(commands(TOP), ["local"]);
        assert_eq!(
            commands("Usage: tool\n\nOptions:\n  -h  Print help\n"),
            Vec::<String>::new()
        );
    }

    #[test]
    fn renders_every_command_once_without_trailing_space() {
        let mut sections = Vec::new();
        collect("tool", &mut Vec::new(), &ask, &mut sections).expect("the fake answers");
        let titles: Vec<_> = sections.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["tool", "tool local", "tool local now"]);
        let page = render("tool", &sections);
        assert!(page.lines().all(|line| line == line.trim_end()), "{page}");
        assert!(
            page.contains("## `tool local now`\n\n```text\nhelp of local now\n```\n"),
            "{page}"
        );
    }

    #[test]
    fn lists_changed_missing_and_orphaned_pages() {
        let folder = std::env::temp_dir().join(format!("xtask-generate-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        let page = |name: &str, text: &str| Page {
            file: format!("flags-{name}.md"),
            text: text.to_owned(),
        };
        for (name, text) in [
            ("flags-same.md", "a"),
            ("flags-changed.md", "a"),
            ("flags-gone.md", MARK),
            ("by-hand.md", "a"),
        ] {
            fs::write(folder.join(name), text).expect("the folder is ours");
        }
        let found = stale(
            &folder,
            &[page("same", "a"), page("changed", "b"), page("new", "a")],
        );
        fs::remove_dir_all(&folder).expect("the folder is ours");
        assert_eq!(
            found.expect("the folder can be listed"),
            ["flags-changed.md", "flags-gone.md", "flags-new.md"]
        );
    }
}
