//! Why a line is not a request. No text holds a byte of the line: only the rule and the column.

use crate::name::NameError;

/// A line that is not a request: which rule it breaks, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{problem} (byte {column})")]
pub struct Malformed {
    /// The rule.
    pub problem: Problem,
    /// Where reading stopped: bytes from the start of the line, from 1; the line's length + 1 for a missing member.
    pub column: usize,
}

/// The rules of a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not one JSON object on one line.
    #[error("the line is not a JSON object")]
    NotAnObject,
    /// JSON's own grammar.
    #[error("the JSON syntax is broken")]
    Syntax,
    /// The line ends inside the object.
    #[error("the line ends too early")]
    EndsEarly,
    /// Something after the object.
    #[error("there are bytes after the object")]
    TrailingBytes,
    /// A raw control character in a string.
    #[error("a control character must be escaped")]
    RawControl,
    /// An escape that JSON does not have.
    #[error("an escape is not one of JSON's")]
    Escape,
    /// Half a surrogate pair.
    #[error("a surrogate stands alone")]
    LoneSurrogate,
    /// A member that the protocol does not have; names are case-sensitive.
    #[error("a member is not part of the protocol")]
    UnknownMember,
    /// A member twice.
    #[error("a member is given twice")]
    DuplicateMember,
    /// A member of another type than the protocol's.
    #[error("a member has the wrong type")]
    WrongType,
    /// A member that must be there is not.
    #[error("a required member is missing")]
    MissingMember,
    /// `type` is none of the protocol's.
    #[error("\"type\" must be \"REQUEST\", \"HELLO\", \"STATUS\", \"LOCK\", \"UNLOCK\" or \"SEAL\"")]
    UnknownType,
    /// `action` is none of the five.
    #[error("\"action\" must be read, write, delete, search or check")]
    UnknownAction,
    /// `match` is neither word.
    #[error("\"match\" must be exact or prefix")]
    UnknownMatch,
    /// A member that this action or type does not take.
    #[error("a member does not belong to this action")]
    MisplacedMember,
    /// No target, or more than 1,024.
    #[error("\"targets\" must name 1 to 1024 targets")]
    TargetCount,
    /// A target twice.
    #[error("a target is named twice")]
    DuplicateTarget,
    /// `values` and `targets` differ in length.
    #[error("\"values\" must have as many members as \"targets\"")]
    ValueCount,
    /// A value over 64 KiB.
    #[error("a value is over 65536 bytes")]
    ValueTooLong,
    /// A nonce that is not 64 hexadecimal digits.
    #[error("\"nonce\" must be 64 hexadecimal digits")]
    Nonce,
    /// The key of an `UNLOCK` has another form.
    #[error("\"key\" must be 144 hexadecimal digits")]
    SealedKey,
    /// A name that breaks its rule.
    #[error("{0}")]
    Name(#[from] NameError),
}
