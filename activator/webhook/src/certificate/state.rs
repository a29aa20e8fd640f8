//! What there is, what is due, and the next state.

use serde::{Deserialize, Serialize};

use super::issue;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Life of an authority.
pub(super) const AUTHORITY_LIFE: i64 = 365 * DAY;
/// Life of a serving certificate.
pub(super) const SERVING_LIFE: i64 = 30 * DAY;
/// Certificates are valid from this long before they are made: clocks differ.
pub(super) const BACKDATED: i64 = HOUR;
/// How long a new authority is only trusted before it signs what is served, in seconds.
pub const OVERLAP: i64 = HOUR;

/// All that the activators share. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The newest first; only this one signs.
    pub authorities: Vec<Authority>,
    /// The newest authority's private key.
    pub key: String,
    /// What is served.
    pub serving: Option<Serving>,
}

/// An authority that is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authority {
    /// When it was made, by which it is known.
    pub made: i64,
    /// When it expires.
    pub until: i64,
    /// Its certificate in PEM.
    pub certificate: String,
}

/// A certificate to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// When it was made.
    pub made: i64,
    /// When it expires.
    pub until: i64,
    /// The authority that signed it.
    pub signed_by: i64,
    /// The names it is for.
    pub names: Vec<String>,
    /// The certificate in PEM.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A serving certificate of the newest authority.
    Serving,
    /// One more authority, which does not sign yet.
    Authority,
    /// Both at once: what there is cannot be used.
    Both,
}

/// No certificate could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no certificate could be made: {0}")]
pub struct IssueError(pub(super) String);

/// What has to be done at `now` for certificates for `names`.
pub fn due(state: &State, names: &[String], now: i64) -> Due {
    let covers = |made: i64, until: i64| made - BACKDATED <= now && now < until;
    let ages = |made: i64, until: i64| now >= made + (until - made) / 3 * 2;
    let Some(newest) = state
        .authorities
        .first()
        .filter(|newest| covers(newest.made, newest.until))
    else {
        return Due::Both;
    };
    let Some(serving) = state
        .serving
        .as_ref()
        .filter(|serving| covers(serving.made, serving.until) && serving.names == names)
    else {
        return Due::Serving;
    };
    if ages(newest.made, newest.until) {
        return Due::Authority;
    }
    let is_of_newest = serving.signed_by == newest.made;
    let may_sign = is_of_newest || now >= newest.made + OVERLAP;
    if may_sign && (!is_of_newest || ages(serving.made, serving.until)) {
        return Due::Serving;
    }
    Due::Nothing
}

impl State {
    /// The state after `what` was done at `now`.
    ///
    /// # Errors
    /// [`IssueError`] if a key cannot be used or made.
    pub fn after(&self, what: Due, names: &[String], now: i64) -> Result<Self, IssueError> {
        let mut next = self.clone();
        // What has expired helps nobody, and what is not valid yet is of a clock that was wrong.
        next.authorities
            .retain(|one| one.made - BACKDATED <= now && now < one.until);
        if matches!(what, Due::Authority | Due::Both) {
            let (authority, key) = issue::authority(now)?;
            next.authorities.insert(0, authority);
            next.key = key;
        }
        if matches!(what, Due::Serving | Due::Both) {
            let newest = next
                .authorities
                .first()
                .ok_or_else(|| IssueError("there is no authority".to_owned()))?;
            next.serving = Some(issue::serving(newest, &next.key, names, now)?);
        }
        Ok(next)
    }

    /// Every authority's certificate, for whoever has to trust us.
    pub fn bundle(&self) -> String {
        let certificates = self.authorities.iter().map(|one| one.certificate.as_str());
        certificates.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["rouse-webhook.rouse-system.svc".to_owned()]
    }

    /// Day 20000 since 1970.
    const START: i64 = 20_000 * DAY;

    fn fresh() -> State {
        State::default().after(Due::Both, &names(), START).unwrap()
    }

    #[test]
    fn each_is_renewed_at_two_thirds_of_its_life() {
        let state = fresh();
        for (at, what) in [
            (START, Due::Nothing),
            (START - BACKDATED, Due::Nothing),
            (START + 20 * DAY - 1, Due::Nothing),
            (START + 20 * DAY, Due::Serving),
            (START + 30 * DAY, Due::Serving),
            (START + 365 * DAY, Due::Both),
            (START - BACKDATED - 1, Due::Both),
        ] {
            assert_eq!(due(&state, &names(), at), what, "{}", at - START);
        }
        assert_eq!(due(&State::default(), &names(), START), Due::Both);
        assert_eq!(due(&state, &["other".to_owned()], START), Due::Serving);
    }

    #[test]
    fn in_ten_years_nothing_is_served_that_is_not_trusted_for_an_hour() {
        let mut state = fresh();
        let (mut now, mut authorities, mut servings) = (START, 1, 1);
        // When each authority came into the bundle.
        let mut trusted_since = vec![(state.authorities[0].made, START - OVERLAP)];
        while now < START + 3_650 * DAY {
            match due(&state, &names(), now) {
                Due::Nothing => now += 20 * MINUTE,
                what => {
                    assert_ne!(what, Due::Both, "at {now}");
                    let next = state.after(what, &names(), now).unwrap();
                    if what == Due::Authority {
                        authorities += 1;
                        trusted_since.push((next.authorities[0].made, now));
                    } else {
                        servings += 1;
                    }
                    state = next;
                }
            }
            let serving = state.serving.as_ref().unwrap();
            assert!(now < serving.until);
            let signer = |made: i64| trusted_since.iter().find(|one| one.0 == made).unwrap().1;
            assert!(now - signer(serving.signed_by) >= OVERLAP);
            assert!(
                state
                    .authorities
                    .iter()
                    .any(|one| one.made == serving.signed_by)
            );
            assert!(state.authorities.len() <= 2);
        }
        assert_eq!((authorities, servings > 180), (15, true), "{servings}");
    }

    #[test]
    fn what_has_expired_leaves_the_bundle_and_what_has_not_stays() {
        let state = fresh();
        let at = START + 250 * DAY;
        let two = state.after(Due::Authority, &names(), at).unwrap();
        assert_eq!(two.bundle().matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(two.serving, state.serving, "it does not sign yet");
        let later = two
            .after(Due::Serving, &names(), START + 365 * DAY)
            .unwrap();
        assert_eq!(later.authorities, two.authorities[..1]);
    }
}
