//! A configuration of SPIRE's as a list of what it says: each value with the path to it.

use anyhow::{Context, Result, bail};
use hcl::{Body, Expression, Structure};
use serde_json::Value;

use super::apart::apart;

/// One thing that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// `server.trust_domain`, or with a block's labels: `plugins.NodeAttestor.tpm.plugin_data.ca_path`.
    pub path: Vec<String>,
    /// Texts; a block with nothing in it has none.
    pub values: Vec<String>,
}

/// Reads HCL, or JSON as SPIRE takes it.
pub(super) fn read(text: &str) -> Result<Vec<Leaf>> {
    let mut leaves = Vec::new();
    match text.trim_start().starts_with('{') {
        true => {
            let value: Value = serde_json::from_str(text).context("it is no JSON")?;
            of_json(&value, &mut Vec::new(), &mut leaves)?;
        }
        false => {
            let body = hcl::parse(&apart(text)).context("it is no HCL")?;
            of_body(&body, &mut Vec::new(), &mut leaves)?;
        }
    }
    Ok(leaves)
}

fn of_body(body: &Body, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) -> Result<()> {
    if path.len() > DEPTH_MAX {
        bail!("{}: it is nested too deep", path.join("."));
    }
    if body.iter().next().is_none() && !path.is_empty() {
        leaves.push(Leaf { path: path.clone(), values: Vec::new() });
    }
    for structure in body {
        let before = path.len();
        match structure {
            Structure::Attribute(attribute) => {
                path.push(attribute.key.to_string());
                of_expression(&attribute.expr, path, leaves)?;
            }
            Structure::Block(block) => {
                path.push(block.identifier.to_string());
                path.extend(block.labels.iter().map(|label| label.as_str().to_owned()));
                of_body(&block.body, path, leaves)?;
            }
        }
        path.truncate(before);
    }
    Ok(())
}

fn of_expression(expression: &Expression, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) -> Result<()> {
    if path.len() > DEPTH_MAX {
        bail!("{}: it is nested too deep", path.join("."));
    }
    match expression {
        Expression::Object(members) => {
            if members.is_empty() {
                leaves.push(Leaf { path: path.clone(), values: Vec::new() });
            }
            for (key, member) in members {
                path.push(key.to_string().trim_matches('"').to_owned());
                of_expression(member, path, leaves)?;
                path.pop();
            }
        }
        Expression::Array(items) if items.iter().any(|item| matches!(item, Expression::Object(_))) => {
            for item in items {
                of_expression(item, path, leaves)?;
            }
        }
        Expression::Array(items) => {
            leaves.push(Leaf { path: path.clone(), values: items.iter().map(text).collect() });
        }
        one => leaves.push(Leaf { path: path.clone(), values: vec![text(one)] }),
    }
    Ok(())
}

/// What is no plain value is shown as it was written.
fn text(expression: &Expression) -> String {
    match expression {
        Expression::String(text) => text.clone(),
        Expression::Bool(bool) => bool.to_string(),
        Expression::Number(number) => number.to_string(),
        other => hcl::format::to_string(other).unwrap_or_default(),
    }
}

fn of_json(value: &Value, path: &mut Vec<String>, leaves: &mut Vec<Leaf>) -> Result<()> {
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match value {
        Value::Object(members) => {
            if members.is_empty() {
                leaves.push(Leaf { path: path.clone(), values: Vec::new() });
            }
            for (key, member) in members {
                path.push(key.clone());
                of_json(member, path, leaves)?;
                path.pop();
            }
        }
        // A block that may be there several times.
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                of_json(item, path, leaves)?;
            }
        }
        Value::Array(items) => {
            leaves.push(Leaf { path: path.clone(), values: items.iter().map(plain).collect() });
        }
        other => leaves.push(Leaf { path: path.clone(), values: vec![plain(other)] }),
    }
    Ok(())
}

const DEPTH_MAX: usize = 16;
