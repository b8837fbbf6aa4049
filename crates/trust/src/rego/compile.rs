//! From text to program, with what a module may not ask for refused.

use regorus::Engine;
use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::Instruction;
use regorus::rvm::program::{RuleInfo, RuleType};

use super::{Module, Rule};
use crate::policy::{PolicyError, REGO_MODULE_BYTES_MAX, TextError};

impl Module {
    /// Compiles the text of `rego.modules[index]`.
    pub(crate) fn compile(index: usize, text: &str) -> Result<Self, PolicyError> {
        if text.len() > REGO_MODULE_BYTES_MAX {
            return Err(PolicyError::RegoTooLong { index, bytes: text.len() });
        }
        if has_default(text) {
            return Err(PolicyError::RegoBuiltin { index, name: "`default`".to_owned() });
        }
        let error = |words: String| located(index, &words);
        let mut engine = Engine::new();
        let package =
            engine.add_policy(SOURCE.to_owned(), text.to_owned()).map_err(|e| error(e.to_string()))?;
        if package != "data.assay" {
            return Err(PolicyError::RegoPackage { index });
        }
        let count = engine.get_modules().iter().map(|module| module.policy.len()).sum();
        if count > RULES_MAX {
            return Err(PolicyError::TooMany { field: "rego.modules", count, max: RULES_MAX });
        }
        let has = |engine: &Engine, rule: &Rule| engine.has_declared_rule_rooted_at(SOURCE, rule.name());
        let rules: Vec<Rule> =
            Rule::ALL.into_iter().filter(|rule| has(&engine, rule).unwrap_or(false)).collect();
        let Some(first) = rules.first() else { return Err(PolicyError::RegoDecidesNothing { index }) };
        let policy =
            engine.compile_with_entrypoint(&first.path().into()).map_err(|e| error(e.to_string()))?;
        let paths: Vec<&str> = rules.iter().map(|rule| rule.path()).collect();
        let program = Compiler::compile_from_policy(&policy, &paths).map_err(|e| error(e.to_string()))?;
        let ambiguous = program.rule_infos.iter().find(|rule| is_ambiguous(rule));
        if let Some(rule) = ambiguous {
            return Err(PolicyError::RegoAmbiguous { index, rule: rule.name.clone() });
        }
        let asks_host = program.instructions.iter().any(|step| matches!(step, Instruction::HostAwait { .. }));
        let mut called = program.builtin_info_table.iter().map(|builtin| builtin.name.as_str());
        let refused = called.find(|name| BUILTINS.binary_search(name).is_err());
        match refused.or(asks_host.then_some("__builtin_host_await")) {
            Some(name) => Err(PolicyError::RegoBuiltin { index, name: name.to_owned() }),
            None => Ok(Module { program, rules }),
        }
    }
}

/// Whether a rule's definitions might contradict each other, which the machine takes for no value at all; or whether
/// one that is asked for is no set, to which each definition only adds.
fn is_ambiguous(rule: &RuleInfo) -> bool {
    let asked = Rule::ALL.iter().any(|asked| asked.path() == rule.name);
    match rule.rule_type {
        RuleType::Complete => asked || (rule.definitions.len() > 1 && !rule.early_exit_on_first_success),
        RuleType::PartialObject => asked,
        RuleType::PartialSet => false,
    }
}

/// Whether the word is there, but for paths and the like: the compiler evaluates such a rule without any bound.
fn has_default(text: &str) -> bool {
    text.split("default").skip(1).any(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '#'))
}

/// The compiler says `--> FILE:LINE:COLUMN`, shows the line, and ends with `error: WORDS`.
fn located(index: usize, words: &str) -> PolicyError {
    let message = words.rsplit_once("error: ").map_or(words, |(_, message)| message).trim();
    if let Some(name) = message.strip_prefix("Missing builtin function: ") {
        return PolicyError::RegoBuiltin { index, name: name.to_owned() };
    }
    let place = words.split_once("--> ").and_then(|(_, rest)| rest.lines().next());
    let mut numbers =
        place.into_iter().flat_map(|place| place.rsplit(':')).map(|text| text.trim().parse().ok());
    let column = numbers.next().flatten().unwrap_or(1);
    let line = numbers.next().flatten().unwrap_or(1);
    PolicyError::Rego { index, line, column, error: TextError::new(message) }
}

const SOURCE: &str = "module";
/// Rules of one module. Each that calls another takes stack of the compiler.
pub(super) const RULES_MAX: usize = 128;
/// What a rule may call: functions of their arguments alone, whose results are not much larger than these. Sorted.
const BUILTINS: &[&str] = &[
    "__builtin_sets.intersection",
    "__builtin_sets.union",
    "abs",
    "array.concat",
    "array.reverse",
    "array.slice",
    "bits.and",
    "bits.or",
    "bits.xor",
    "ceil",
    "concat",
    "contains",
    "count",
    "endswith",
    "floor",
    "format_int",
    "indexof",
    "intersection",
    "is_array",
    "is_boolean",
    "is_null",
    "is_number",
    "is_object",
    "is_set",
    "is_string",
    "lower",
    "max",
    "min",
    "object.get",
    "object.keys",
    "object.subset",
    "round",
    "sort",
    "split",
    "sprintf",
    "startswith",
    "strings.any_prefix_match",
    "strings.any_suffix_match",
    "strings.count",
    "substring",
    "sum",
    "to_number",
    "trim",
    "trim_left",
    "trim_prefix",
    "trim_right",
    "trim_space",
    "trim_suffix",
    "type_name",
    "union",
    "upper",
];
