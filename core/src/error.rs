use rectify_protocol::{Failure, Kind};

/// What a core function could not do: what was expected, what was found, where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What the asker gave cannot be used; the text names the field and what was expected.
    #[error("{0}")]
    BadInput(Failure),
    /// Something the editor needs is not there: second moments, what MEND learnt. The text says how to get it.
    #[error("{0}")]
    Missing(String),
    /// A checkpoint, tokenizer or statistics file is not what it should be.
    #[error("{file}: {problem}")]
    BadFile {
        /// The file, by the name the edge gave it.
        file: String,
        /// What is wrong, and where in the file.
        problem: String,
    },
    /// No model has been loaded yet.
    #[error("no model is loaded")]
    NoModel,
    /// A computation left the finite numbers; nothing was changed.
    #[error("{what} is not a finite number{hint}")]
    NotFinite {
        /// The quantity.
        what: String,
        /// What to try, beginning with `; `, or nothing.
        hint: String,
    },
    /// A matrix that must be positive definite is not.
    #[error("{0}")]
    Singular(String),
    /// An edit would do more harm than its guards allow.
    #[error("{0}")]
    Harmful(String),
    /// The device failed while a result was read.
    #[error("the device failed: {0}")]
    Device(String),
}

/// [`std::result::Result`] with core's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::BadInput(Failure::bad_input(message))
    }

    pub(crate) fn bad_file(file: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::BadFile { file: file.into(), problem: problem.into() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::BadInput(failure)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let kind = match error {
            Error::BadInput(failure) => return failure,
            Error::BadFile { .. } | Error::NoModel | Error::Singular(_) | Error::NotFinite { .. } => Kind::BadInput,
            Error::Missing(_) => Kind::NotFound,
            Error::Harmful(_) => Kind::Harmful,
            Error::Device(_) => Kind::Device,
        };
        Self::new(kind, message)
    }
}
