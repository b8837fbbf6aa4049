//! The file of passwords as PostgreSQL's own programs have it: `host:port:database:user:password` in a line, `*` for any, a
//! backslash before `:` and `\`. The first line that fits counts.
//!
//! Source: PostgreSQL, "The Password File".

/// The password for a connection; `None`: no line is about it.
pub(super) fn password(text: &str, asked: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let password = fields.pop()?;
        let fits = fields.len() == asked.len()
            && fields.iter().zip(asked).all(|(field, asked)| field == "*" || field == asked);
        fits.then_some(password)
    })
}

/// Up to five fields; what comes after the fourth colon is the last one's.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut field) = (Vec::new(), String::new());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => field.extend(characters.next()),
            ':' if fields.len() < 4 => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_counts() {
        let text = "# a comment: with colons: in: it: here\nother:5432:assay:assay:no\n\
                    db:*:assay:assay:p\\:a\\\\s:s\n*:*:*:*:any\n";
        assert_eq!(password(text, ["db", "5432", "assay", "assay"]).unwrap(), "p:a\\s:s");
        assert_eq!(password(text, ["db", "5432", "assay", "else"]).unwrap(), "any");
        assert_eq!(password("db:5432:assay:assay", ["db", "5432", "assay", "assay"]), None);
        assert_eq!(password("", ["db", "5432", "assay", "assay"]), None);
    }

    #[test]
    fn a_line_that_ends_in_a_backslash_is_read() {
        assert_eq!(password("*:*:*:*:a\\", ["", "", "", ""]).unwrap(), "a");
    }
}
