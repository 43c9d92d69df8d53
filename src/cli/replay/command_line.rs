//! Builds the command that resumes a replay, quoted for a POSIX shell.

/// Joins the arguments of a command. Quotes each argument that contains a character with a meaning for the shell.
pub(super) fn shell_words(arguments: &[String]) -> String {
    arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-:@/,=+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_each_argument_unchanged() {
        let arguments = ["--type", "invoice.*", "--id", "it's $(x)", ""].map(str::to_owned);
        assert_eq!(shell_words(&arguments), r"--type 'invoice.*' --id 'it'\''s $(x)' ''");
    }
}
