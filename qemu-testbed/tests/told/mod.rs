//! Errors as a test runner shows them.

/// What was played, as a test gives it.
pub fn told(played: qemu_testbed::error::Result<std::time::Duration>) -> Result<(), Told> {
    played.map(drop).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!("\n  because: {error}"));
            cause = error.source();
        }
        Told(text)
    })
}

/// An error as a test runner shows it: in words.
pub struct Told(pub String);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
