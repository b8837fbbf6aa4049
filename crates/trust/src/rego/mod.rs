//! Rego modules compiled for a virtual machine that counts its instructions, so that the bound on a rule, like all that
//! it decides, is the same anywhere. Nothing in reach of a rule knows a clock, a network or chance.

mod compile;
mod input;

use std::sync::Arc;

use regorus::Value;
use regorus::rvm::RegoVM;
use regorus::rvm::program::Program;
use regorus::rvm::vm::{ExecutionMode, VmError};
use thiserror::Error;

pub(crate) use input::{NEW_ENTRIES_MAX, input};

use crate::finding::Tier;

/// A module of the package `assay`.
#[derive(Debug)]
pub(crate) struct Module {
    program: Arc<Program>,
    rules: Vec<Rule>,
}

/// A rule that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    Deny,
    Warn,
}

/// Why a rule gave no verdict.
#[derive(Clone, Debug, PartialEq, Error)]
pub(crate) enum RuleError {
    /// It ran for too long.
    #[error("it takes more than {INSTRUCTIONS_MAX} instructions")]
    Bound,
    /// It gives something else than texts.
    #[error("it gives something else than texts")]
    Shape,
    /// The machine's own words.
    #[error("it fails: {0}")]
    Failed(VmError),
}

impl Module {
    /// What each of its rules says of this input.
    pub(crate) fn evaluate(&self, input: &Value) -> Vec<(Rule, Result<Vec<String>, RuleError>)> {
        self.rules.iter().map(|rule| (*rule, self.run(*rule, input))).collect()
    }

    fn run(&self, rule: Rule, input: &Value) -> Result<Vec<String>, RuleError> {
        let mut machine = RegoVM::new();
        machine.load_program(Arc::clone(&self.program));
        machine.set_max_instructions(INSTRUCTIONS_MAX);
        // Keeps its stack on the heap, so that the bound on instructions holds for rules that call each other as well.
        machine.set_execution_mode(ExecutionMode::Suspendable);
        machine.set_data(Value::new_object()).map_err(RuleError::Failed)?;
        machine.set_input(input.clone());
        match machine.execute_entry_point_by_name(rule.path()) {
            Ok(value) => texts(&value),
            Err(VmError::InstructionLimitExceeded { .. }) => Err(RuleError::Bound),
            Err(error) => Err(RuleError::Failed(error)),
        }
    }
}

fn texts(value: &Value) -> Result<Vec<String>, RuleError> {
    let Value::Set(items) = value else { return Err(RuleError::Shape) };
    let text = |value: &Value| value.as_string().map(|text| text.to_string()).map_err(|_| RuleError::Shape);
    items.iter().map(text).collect()
}

impl Rule {
    const ALL: [Rule; 2] = [Rule::Deny, Rule::Warn];

    /// Its name in the module.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Rule::Deny => "deny",
            Rule::Warn => "warn",
        }
    }

    /// What its texts mean for the result.
    pub(crate) fn tier(self) -> Tier {
        match self {
            Rule::Deny => Tier::Contraindicated,
            Rule::Warn => Tier::Warning,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Rule::Deny => "data.assay.deny",
            Rule::Warn => "data.assay.warn",
        }
    }
}

/// A look at each of a thousand files takes some ten thousand. A rule that calls itself until here takes some 64 MiB.
const INSTRUCTIONS_MAX: usize = 1_000_000;

#[cfg(test)]
mod tests;
