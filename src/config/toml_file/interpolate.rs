//! `${NAME}` and `${NAME:-default}` in strings of the configuration.
//!
//! `$${` stands for a literal `${`; a `$` before anything else is just a `$`, so that a password
//! rarely needs an escape. What a variable holds is taken as it is and not searched again.

/// Fills in the variables, or says what is wrong with each that cannot be filled in. The messages
/// hold names of variables, never their values.
pub(crate) fn interpolate(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<String, Vec<String>> {
    let mut out = String::with_capacity(text.len());
    let mut wrong = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(escaped) = before.strip_suffix('$') {
            out.push_str(escaped);
            out.push_str("${");
            rest = after;
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            wrong.push("`${` has no `}`: close it, or write `$${` for a literal `${`".to_owned());
            rest = "";
            break;
        };
        match variable(inside, env) {
            Ok(value) => out.push_str(&value),
            Err(message) => wrong.push(message),
        }
        rest = after;
    }
    out.push_str(rest);
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

fn variable(inside: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    if !is_variable_name(name) {
        let fix = "write `${NAME}` or `${NAME:-default}`, and `$${` for a literal `${`";
        return Err(format!("`${{...}}` does not hold the name of a variable: {fix}"));
    }
    match (env(name), default) {
        // As in a shell, `:-` also stands in for a variable that is empty.
        (Some(value), Some(default)) if value.is_empty() => Ok(default.to_owned()),
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!(
            "environment variable {name} is not set: set it, or write `${{{name}:-default}}`"
        )),
    }
}

/// Whether a shell would take the text as the name of a variable.
pub(crate) fn is_variable_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("db.example.com".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_are_filled_in() {
        let cases = [
            ("plain", "plain"),
            ("postgres://${HOST}/app", "postgres://db.example.com/app"),
            ("${HOST}${HOST}", "db.example.comdb.example.com"),
            ("${EMPTY}", ""),
            ("${EMPTY:-x}", "x"),
            ("${MISSING:-a b:-c}", "a b:-c"),
            ("${MISSING:-}", ""),
            ("${HOST:-x}", "db.example.com"),
            ("${NESTED}", "${HOST}"),
            ("$${HOST}", "${HOST}"),
            ("a$b$", "a$b$"),
            ("$$", "$$"),
        ];
        for (text, expected) in cases {
            assert_eq!(interpolate(text, &env), Ok(expected.to_owned()), "case: {text:?}");
        }
    }

    #[test]
    fn each_variable_that_cannot_be_filled_in_is_named() {
        let wrong = interpolate("${A} ${HOST} ${B} ${0} ${open", &env).unwrap_err();
        assert_eq!(
            wrong,
            [
                "environment variable A is not set: set it, or write `${A:-default}`",
                "environment variable B is not set: set it, or write `${B:-default}`",
                "`${...}` does not hold the name of a variable: write `${NAME}` or \
                 `${NAME:-default}`, and `$${` for a literal `${`",
                "`${` has no `}`: close it, or write `$${` for a literal `${`",
            ]
        );
    }

    proptest! {
        #[test]
        fn text_without_variables_stays_as_it_is(text in "[^{]*") {
            prop_assert_eq!(interpolate(&text, &env), Ok(text));
        }

        #[test]
        fn any_text_is_filled_in_or_refused_but_never_panics(text in "[${}:A-]*") {
            let _filled = interpolate(&text, &env);
        }
    }
}
