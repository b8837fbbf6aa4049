//! Kernel versions in the order in which they came.

/// Whether `one` is older than `other`, number by number, as in `6.1.0-9-amd64` and `6.1.0-10-amd64`.
pub(crate) fn is_older(one: &str, other: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
    };
    numbers(one) < numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers() {
        let check = |one: &str, other: &str, expected: bool| assert_eq!(is_older(one, other), expected);
        check("6.1.0-9-amd64", "6.1.0-10-amd64", true);
        check("6.1.0-10-amd64", "6.1.0-9-amd64", false);
        check("6.1.0-55-amd64", "6.1.0-55-amd64", false);
        check("5.10", "6.1.0-1", true);
        check("6.1", "6.1.0", true);
        check("99999999999999999999999", "6.1", false);
    }
}
