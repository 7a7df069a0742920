//! The subscriptions of one session. Most have one, and there may be a million of them: it lies in
//! the session itself, and has its filter in common with all who hold the same.

use std::ops::Deref;

use super::records::Subscribed;

/// A list that has no memory of its own for one entry.
#[derive(Clone, Debug, Default)]
pub(super) enum Subscriptions {
    #[default]
    None,
    One(Subscribed),
    /// The box keeps a session small.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Subscribed>>),
}

impl Subscriptions {
    pub(super) fn push(&mut self, subscribed: Subscribed) {
        *self = match std::mem::take(self) {
            Subscriptions::None => Subscriptions::One(subscribed),
            Subscriptions::One(first) => Subscriptions::Many(Box::new(vec![first, subscribed])),
            Subscriptions::Many(mut all) => {
                all.push(subscribed);
                Subscriptions::Many(all)
            }
        };
    }

    /// Puts another one in the place of the one at `at`.
    ///
    /// # Panics
    /// There is none.
    pub(super) fn replace(&mut self, at: usize, subscribed: Subscribed) {
        match self {
            Subscriptions::One(held) if at == 0 => *held = subscribed,
            Subscriptions::Many(all) => all[at] = subscribed,
            _ => panic!("there is no subscription {at}"),
        }
    }

    /// Takes the one at `at` out; the last one takes its place.
    ///
    /// # Panics
    /// There is none.
    pub(super) fn swap_remove(&mut self, at: usize) -> Subscribed {
        let mut all = std::mem::take(self).into_vec();
        let removed = all.swap_remove(at);
        *self = all.into();
        removed
    }

    /// Takes those out for which `which` holds.
    pub(super) fn take_if(&mut self, which: impl Fn(&Subscribed) -> bool) -> Vec<Subscribed> {
        if !self.iter().any(&which) {
            return Vec::new();
        }
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(self).into_vec().into_iter().partition(which);
        *self = left.into();
        taken
    }

    pub(super) fn into_vec(self) -> Vec<Subscribed> {
        match self {
            Subscriptions::None => Vec::new(),
            Subscriptions::One(one) => vec![one],
            Subscriptions::Many(all) => *all,
        }
    }
}

impl From<Vec<Subscribed>> for Subscriptions {
    fn from(mut all: Vec<Subscribed>) -> Subscriptions {
        match all.len() {
            0 => Subscriptions::None,
            1 => all.pop().map_or(Subscriptions::None, Subscriptions::One),
            _ => {
                all.shrink_to_fit();
                Subscriptions::Many(Box::new(all))
            }
        }
    }
}

impl Deref for Subscriptions {
    type Target = [Subscribed];

    fn deref(&self) -> &[Subscribed] {
        match self {
            Subscriptions::None => &[],
            Subscriptions::One(one) => std::slice::from_ref(one),
            Subscriptions::Many(all) => all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sextant_mqtt::QoS;

    fn subscribed(filter: u8) -> Subscribed {
        Subscribed {
            filter: format!("f/{filter}").into(),
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            subscription_id: 0,
        }
    }

    #[test]
    fn a_session_has_no_memory_for_its_one_subscription_but_its_own() {
        assert_eq!(size_of::<Subscriptions>(), size_of::<Subscribed>());
    }

    proptest! {
        #[test]
        fn it_holds_what_a_vector_would(ops in prop::collection::vec((0u8..4, 0u8..6), 0..60)) {
            let (mut held, mut oracle) = (Subscriptions::default(), Vec::new());
            for (what, filter) in ops {
                let at = usize::from(filter);
                match what {
                    0 => {
                        held.push(subscribed(filter));
                        oracle.push(subscribed(filter));
                    }
                    1 if at < oracle.len() => {
                        held.replace(at, subscribed(100 + filter));
                        oracle[at] = subscribed(100 + filter);
                    }
                    2 if at < oracle.len() => {
                        prop_assert_eq!(held.swap_remove(at), oracle.swap_remove(at));
                    }
                    3 => {
                        let which = |held: &Subscribed| *held.filter == *format!("f/{filter}");
                        let taken: Vec<Subscribed> = oracle.extract_if(.., |held| which(held)).collect();
                        prop_assert_eq!(held.take_if(which), taken);
                    }
                    _ => {}
                }
                prop_assert_eq!(&*held, &*oracle);
            }
            prop_assert_eq!(held.into_vec(), oracle);
        }
    }
}
