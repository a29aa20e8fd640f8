//! One namespace at one moment, with what it takes to find a workload's part of it without looking at everybody else's.
//!
//! It is made anew for each look, and each look asks for every workload: what walked all Services for each of them, and all
//! slices for each of those, took the third power of the number of workloads.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use kubernetes::{Labels, WorkloadView, labels, names};

use crate::kubernetes::view::{ServiceView, SliceView};

/// Everything in one namespace.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// By name.
    pub(super) services: BTreeMap<Arc<str>, Arc<ServiceView>>,
    pub(super) slices: Vec<Arc<SliceView>>,
    pub(super) workloads: Vec<Arc<WorkloadView>>,
    /// Labels of ready pods without a sidecar.
    pub(super) bare: Vec<Labels>,
    /// What each Service selects that is neither companion nor relay.
    selected: HashMap<Arc<str>, Selected>,
    /// Places in `workloads`, by name.
    places: HashMap<String, usize>,
    /// Services that select each workload's pods, by its place.
    selecting: Vec<Vec<Arc<str>>>,
    /// Services with a record of what was done because of a workload, by its name.
    recorded: HashMap<String, Vec<Arc<str>>>,
    /// Places in `slices`, by Service and by workload.
    of_service: HashMap<String, Vec<usize>>,
    of_workload: HashMap<String, Vec<usize>>,
}

/// What a Service selects. Two workloads are enough: one of them is not the one that is asked for.
#[derive(Debug)]
struct Selected {
    workloads: Vec<Arc<WorkloadView>>,
    bare: Option<usize>,
}

impl Space {
    /// Orders what was filled in.
    pub(super) fn order(&mut self) {
        for (place, slice) in self.slices.iter().enumerate() {
            let of = self.of_service.entry(slice.service.clone()).or_default();
            of.push(place);
            let of = self.of_workload.entry(slice.workload.clone()).or_default();
            of.push(place);
        }
        let names = self.workloads.iter().map(|one| one.target.name());
        let places = names.enumerate();
        self.places = places
            .map(|(place, name)| (name.to_owned(), place))
            .collect();
        self.selecting = vec![Vec::new(); self.workloads.len()];
        let workloads = ByLabel::new(self.workloads.iter().map(|one| &one.pod_labels));
        let bare = ByLabel::new(self.bare.iter());
        for (name, service) in &self.services {
            if let Some(record) = &service.adopted {
                let of = self.recorded.entry(record.workload.clone()).or_default();
                of.push(Arc::clone(name));
            }
            if service.is_companion() || service.is_relay() {
                continue;
            }
            let mut selected = Vec::new();
            for place in workloads.may_have(&service.selector) {
                let workload = &self.workloads[place];
                if workload.selected_by(&service.selector) {
                    self.selecting[place].push(Arc::clone(name));
                    if selected.len() < 2 {
                        selected.push(Arc::clone(workload));
                    }
                }
            }
            let mut candidates = bare.may_have(&service.selector);
            let has = |place: &usize| labels::have(&self.bare[*place], &service.selector);
            let selected = Selected {
                workloads: selected,
                bare: candidates.find(has),
            };
            self.selected.insert(Arc::clone(name), selected);
        }
    }

    /// Services with a record of what was done because of a workload.
    pub(super) fn recorded(&self, workload: &str) -> impl Iterator<Item = &Arc<ServiceView>> {
        let names = self.recorded.get(workload).into_iter().flatten();
        names.filter_map(|name| self.services.get(name))
    }

    /// Services that may be a workload's: they select its pods, or something beside them is there because of it.
    pub(super) fn concern<'a>(&'a self, workload: &str) -> BTreeSet<&'a str> {
        let place = self.places.get(workload);
        let selecting = place.and_then(|place| self.selecting.get(*place));
        let selecting = selecting.into_iter().flatten();
        let mut names: BTreeSet<&str> = selecting.map(|name| &**name).collect();
        let end = names::companion("");
        let companions = self.recorded(workload);
        names.extend(companions.filter_map(|one| one.name.strip_suffix(&end)));
        names.extend(self.of_workload(workload).map(|one| one.service.as_str()));
        names
    }

    /// Our slices that are there because of a workload.
    pub(super) fn of_workload(&self, workload: &str) -> impl Iterator<Item = &Arc<SliceView>> {
        let places = self.of_workload.get(workload).into_iter().flatten();
        places.map(|place| &self.slices[*place])
    }

    /// Our slices of these Services, and those that are there because of a workload.
    pub(super) fn slices<'a>(
        &self,
        workload: &str,
        services: impl Iterator<Item = &'a str>,
    ) -> Vec<Arc<SliceView>> {
        let of_services = services.filter_map(|name| self.of_service.get(name));
        let of_workload = self.of_workload.get(workload);
        let places: BTreeSet<usize> = of_services.chain(of_workload).flatten().copied().collect();
        let slices = places.iter().map(|place| Arc::clone(&self.slices[*place]));
        slices.collect()
    }

    /// Another workload whose pods a Service selects too.
    pub(super) fn other(&self, service: &str, workload: &str) -> Option<&WorkloadView> {
        let selected = self.selected.get(service)?;
        let mut others = selected.workloads.iter();
        let other = others.find(|one| one.target.name() != workload)?;
        Some(&**other)
    }

    /// A ready pod without a sidecar that a Service selects. Another one says nothing more.
    pub(super) fn bare(&self, service: &str) -> Option<&Labels> {
        let place = self.selected.get(service)?.bare?;
        self.bare.get(place)
    }
}

/// Who has a label, so that a selector is compared only with those that have its rarest one.
#[derive(Debug)]
struct ByLabel<'a> {
    places: HashMap<(&'a str, &'a str), Vec<usize>>,
    count: usize,
}

impl<'a> ByLabel<'a> {
    fn new(all: impl Iterator<Item = &'a Labels>) -> Self {
        let mut places: HashMap<_, Vec<usize>> = HashMap::new();
        let mut count = 0;
        for (place, labels) in all.enumerate() {
            for (key, value) in labels {
                let of = places.entry((key.as_str(), value.as_str())).or_default();
                of.push(place);
            }
            count += 1;
        }
        Self { places, count }
    }

    /// The places of those that a selector may select, in order: everybody if it asks for nothing.
    fn may_have<'b>(&'b self, selector: &'b Labels) -> impl Iterator<Item = usize> + 'b {
        let having = |(key, value): (&'b String, &'b String)| -> &'b [usize] {
            let places = self.places.get(&(key.as_str(), value.as_str()));
            places.map_or(&[][..], Vec::as_slice)
        };
        let rarest = selector.iter().map(having).min_by_key(|some| some.len());
        let everybody = if rarest.is_none() { self.count } else { 0 };
        (0..everybody).chain(rarest.unwrap_or_default().iter().copied())
    }
}
