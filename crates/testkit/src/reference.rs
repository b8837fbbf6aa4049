//! Pages of reference that are made of types: what a configuration may say, from the schema of its struct and the comments
//! beside its fields. A page is checked in, and a test fails when it is not what the types say.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

/// Fails unless the page is what the schema says; with `ASSAY_SURFACE=write` in the environment it is written anew.
///
/// # Panics
///
/// When the page is another, or cannot be written.
pub fn check(page: &Path, title: &str, about: &str, schema: &Value) {
    let text = render(title, about, schema);
    if std::env::var_os("ASSAY_SURFACE").is_some_and(|wish| wish == "write") {
        let written = page.parent().map_or(Ok(()), std::fs::create_dir_all);
        written
            .and_then(|()| std::fs::write(page, &text))
            .unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    }
    let found = std::fs::read_to_string(page).unwrap_or_default();
    assert!(
        found == text,
        "{}: not what the types say; say ASSAY_SURFACE=write if the change is meant",
        page.display()
    );
}

fn render(title: &str, about: &str, schema: &Value) -> String {
    let mut text = format!(
        "<!-- Made of the types by a test: ASSAY_SURFACE=write cargo test year_13. -->\n\n# {title}\n\n{about}\n"
    );
    let mut sections = vec![(String::new(), schema)];
    while !sections.is_empty() {
        let (path, section) = sections.remove(0);
        if !path.is_empty() {
            let _ = write!(text, "\n## [{path}]\n\n{}\n", description(section));
        }
        text += "\n| key | value | default | meaning |\n|---|---|---|---|\n";
        let nested = keys(&mut text, section, schema);
        sections.extend(nested.into_iter().map(|(key, of)| (joined(&path, &key), of)));
    }
    text
}

/// Writes a line for each key; those that are tables of their own are returned.
fn keys<'a>(text: &mut String, section: &'a Value, schema: &'a Value) -> Vec<(String, &'a Value)> {
    let properties = section.get("properties").and_then(Value::as_object);
    let required = section.get("required").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut nested = Vec::new();
    for (key, property) in properties.into_iter().flatten() {
        let of = resolved(property, schema);
        if of.get("properties").is_some() {
            nested.push((key.clone(), of));
            continue;
        }
        let default = match property.get("default") {
            Some(Value::Null) | None if required.contains(&Value::String(key.clone())) => {
                "required".to_owned()
            }
            Some(Value::Null) | None => "–".to_owned(),
            Some(value) => format!("`{value}`"),
        };
        let meaning = description(property);
        let _ = writeln!(text, "| `{key}` | {} | {default} | {meaning} |", kind(of, schema));
    }
    nested
}

/// What a property is, behind references and the absence of a value.
fn resolved<'a>(property: &'a Value, schema: &'a Value) -> &'a Value {
    let is_nothing = |choice: &&Value| choice.get("type").and_then(Value::as_str) == Some("null");
    let choices =
        property.get("anyOf").and_then(Value::as_array).filter(|all| all.iter().any(|it| is_nothing(&it)));
    let of =
        choices.and_then(|choices| choices.iter().find(|choice| !is_nothing(choice))).unwrap_or(property);
    let reference = of.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
    reference.and_then(|path| schema.pointer(path)).unwrap_or(of)
}

/// The kind of value, for people who write TOML.
fn kind(of: &Value, schema: &Value) -> String {
    if let Some(words) = words(of) {
        return words;
    }
    if let Some(choices) = of.get("anyOf").and_then(Value::as_array) {
        return choices
            .iter()
            .map(|one| kind(resolved(one, schema), schema))
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let is = |word: &Value| word.as_str().filter(|word| *word != "null").map(str::to_owned);
    let named = match of.get("type") {
        Some(Value::Array(kinds)) => kinds.iter().find_map(is),
        Some(one) => is(one),
        None => None,
    };
    match named.as_deref() {
        Some("string") => "text".to_owned(),
        Some("integer") => "whole number".to_owned(),
        Some("number") => "number".to_owned(),
        Some("boolean") => "true or false".to_owned(),
        Some("array") => match of.get("items").map(|items| kind(resolved(items, schema), schema)) {
            Some(items) => format!("list of {items}"),
            None => "list".to_owned(),
        },
        other => other.unwrap_or("value").to_owned(),
    }
}

/// The words of a value that is one of some.
fn words(of: &Value) -> Option<String> {
    let quoted = |word: &Value| Some(format!("`\"{}\"`", word.as_str()?));
    let listed = match (of.get("enum"), of.get("oneOf")) {
        (Some(Value::Array(words)), _) => words.iter().filter_map(quoted).collect::<Vec<_>>(),
        (_, Some(Value::Array(choices))) => {
            choices.iter().filter_map(|choice| quoted(choice.get("const")?)).collect()
        }
        _ => return None,
    };
    (!listed.is_empty()).then(|| listed.join(", "))
}

/// The comment beside it, on one line.
fn description(of: &Value) -> String {
    let text = of.get("description").and_then(Value::as_str).unwrap_or_default();
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::render;

    #[test]
    fn year_13_a_page_has_every_key_with_its_default_and_its_meaning() {
        let schema = json!({
            "properties": {
                "data": { "type": "string", "default": "here", "description": "The\nfolder." },
                "must": { "type": ["string", "null"] },
                "limits": { "$ref": "#/$defs/Limits" },
                "mode": { "$ref": "#/$defs/Mode", "default": "one" },
                "place": { "$ref": "#/$defs/Place" },
                "files": { "type": "array", "items": { "type": "string" }, "default": [] },
            },
            "required": ["must"],
            "$defs": {
                "Limits": { "description": "Bounds.", "properties": { "max": { "type": "integer", "default": 7 } } },
                "Place": { "anyOf": [{ "type": "integer" }, { "type": "string" }] },
                "Mode": { "oneOf": [{ "const": "one" }, { "const": "two" }] },
            },
        });
        let page = render("A", "b", &schema);
        for line in [
            "| `data` | text | `\"here\"` | The folder. |",
            "| `must` | text | required |  |",
            "| `mode` | `\"one\"`, `\"two\"` | `\"one\"` |  |",
            "| `place` | whole number or text | – |  |",
            "| `files` | list of text | `[]` |  |",
            "## [limits]\n\nBounds.",
            "| `max` | whole number | `7` |  |",
        ] {
            assert!(page.contains(line), "{line}\n{page}");
        }
    }
}
