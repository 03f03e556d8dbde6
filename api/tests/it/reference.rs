//! The reference page of definitions in `api/README.md` is made of the tables that the reader follows:
//! `UPDATE_README=1 cargo test -p podium-api --test it reference` writes it anew.

use std::fmt::Write;
use std::path::Path;

use podium_types::definition::schema::shape::{Absent, Of, Shape, Text};
use podium_types::definition::schema::tables::POD;

const BEGIN: &str = "<!-- made of the tables in src/types: UPDATE_README=1 cargo test -p podium-api --test it reference -->\n";
const END: &str = "<!-- end of what is made -->\n";

/// Every object, outer ones first.
fn shapes(shape: &'static Shape, all: &mut Vec<&'static Shape>) {
    fn inside(of: &Of, all: &mut Vec<&'static Shape>) {
        match of {
            Of::Object(shape) => shapes(shape, all),
            Of::List { of, .. } | Of::Map { of, .. } => inside(of, all),
            Of::Either(forms) => forms.iter().for_each(|form| inside(form, all)),
            _ => {}
        }
    }
    if all.iter().all(|known| known.name != shape.name) {
        all.push(shape);
        shape.members.iter().for_each(|member| inside(&member.of, all));
    }
}

fn kind(of: &Of) -> String {
    match of {
        Of::Text(Text::Free) => "string".to_owned(),
        Of::Text(Text::NonEmpty) => "string, not empty".to_owned(),
        Of::Text(Text::Path) => "string, 1 to 1024 characters".to_owned(),
        Of::Text(Text::Name) => "name".to_owned(),
        Of::Text(Text::NetworkName) => "name, `_` inside allowed".to_owned(),
        Of::Text(Text::PodId) => "path".to_owned(),
        Of::Text(Text::Time) => "time".to_owned(),
        Of::Flag => "boolean".to_owned(),
        Of::Number { min, max } if *max < f64::MAX => format!("number, {min} to {max}"),
        Of::Number { min, .. } if *min > f64::MIN => format!("number, {min} or more"),
        Of::Number { .. } => "number".to_owned(),
        Of::Integer { min, max } if *max <= 65_535 => format!("whole number, {min} to {max}"),
        Of::Integer { min, .. } => format!("whole number, {min} or more"),
        Of::Word(words) => words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
        Of::Object(shape) => format!("[{}](#{})", shape.name, shape.name.to_lowercase()),
        Of::List { of, min: 0 } => format!("array of {}", kind(of)),
        Of::List { of, min } => format!("array of {}, {min} or more", kind(of)),
        Of::Map { of, .. } => format!("object of {}", kind(of)),
        Of::Either([]) => "anything".to_owned(),
        Of::Either(forms) => forms.iter().map(kind).collect::<Vec<_>>().join(" or "),
    }
}

fn absent(absent: Absent) -> String {
    match absent {
        Absent::Refused => "required".to_owned(),
        Absent::Nothing => String::new(),
        Absent::Filled => "its defaults".to_owned(),
        Absent::Number(number) => number.to_string(),
        Absent::Integer(whole) => whole.to_string(),
        Absent::Flag(flag) => flag.to_string(),
        Absent::Word(word) => format!("`{word}`"),
    }
}

fn page() -> String {
    let mut all = Vec::new();
    shapes(&POD, &mut all);
    let mut page = String::new();
    for shape in all {
        let _ = write!(page, "\n### {}\n\n{}\n\n| field | holds | default | |\n|---|---|---|---|\n", shape.name, shape.about);
        for member in shape.members {
            let _ = writeln!(page, "| `{}` | {} | {} | {} |", member.name, kind(&member.of), absent(member.absent), member.about);
        }
    }
    page.push('\n');
    page
}

#[test]
fn the_reference_page_says_what_is_read() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (made, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(&file, format!("{before}{BEGIN}{}{END}{after}", page())).unwrap();
        return;
    }
    assert!(made == page(), "api/README.md is not what the tables say: run with UPDATE_README=1 and look at the difference");
}
