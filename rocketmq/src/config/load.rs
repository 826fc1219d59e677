//! Puts the layers over each other and reads the result.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fmt, fs, io};

use ::config::{Map, Source, Value, ValueKind};

use super::Config;
use super::document::{Document, is_null};
use super::environment;
use super::place::{KeyPath, Mark, Places};
use super::placeholder::{Placeholders, Scalar, Var};
use super::problem::{ConfigErrors, Problem};
use super::section::{EffectiveValue, Reader};

const DEFAULT_FILE: &str = "rocketmq.yaml";
const FILE_VARIABLE: &str = "ROCKETMQ_CONFIG";
const PROFILE_VARIABLE: &str = "ROCKETMQ_PROFILE";

/// Where a configuration comes from; [`from_process`](Self::from_process) in all but tests.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Sources {
    /// The file; default: what `ROCKETMQ_CONFIG` in `env` names, else `rocketmq.yaml`.
    pub file: Option<PathBuf>,
    /// Its profile; default: `ROCKETMQ_PROFILE` in `env`, else none. Profile `prod` of `rocketmq.yaml` is
    /// `rocketmq-prod.yaml` beside it, and says only what differs.
    pub profile: Option<String>,
    /// The environment: `ROCKETMQ__…` keys, and values for `${…}`.
    pub env: BTreeMap<String, String>,
    /// Leaves out what only real servers need: where they are, credentials, certificates.
    #[cfg(feature = "testing")]
    pub(crate) without_servers: bool,
}

impl Sources {
    /// The environment of this process.
    pub fn from_process() -> Self {
        let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let env = env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Self { env, ..Self::default() }
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once. A file that is no YAML hides what else is wrong with it.
    pub fn load(self) -> Result<LoadedConfig, ConfigErrors> {
        self.draft()?.finished()
    }

    /// The same, as far as it can be read: for whoever has more to say of it.
    pub(crate) fn draft(self) -> Result<Draft, ConfigErrors> {
        let set = |variable| self.env.get(variable).filter(|value: &&String| !value.is_empty()).cloned();
        let file = self.file.clone().or_else(|| set(FILE_VARIABLE).map(PathBuf::from));
        let file = file.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        let mut files = vec![(file.display().to_string(), read(&file)?)];
        if let Some(profile) = self.profile.clone().or_else(|| set(PROFILE_VARIABLE)) {
            let file = file_of_profile(&file, &profile)?;
            files.push((file.display().to_string(), read_profile(&file, &profile)?));
        }
        #[cfg(feature = "testing")]
        if self.without_servers {
            return assemble_with(&files, self.env, super::offline::strip);
        }
        assemble_with(&files, self.env, |_| ())
    }
}

/// Without the values: they hold passwords.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("profile", &self.profile)
            .field("env", &self.env.keys())
            .finish()
    }
}

/// A configuration as far as it can be read, and what is wrong with it: nothing, or it is good for no more than to find what else
/// is wrong.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) loaded: LoadedConfig,
    pub(crate) problems: ConfigErrors,
}

impl Draft {
    /// That of a configuration made in code, with an environment for `${…}` in listeners' attributes.
    pub(crate) fn of(config: Config, env: BTreeMap<String, String>) -> Self {
        let var = |text: &str| Var { scalar: Scalar { text: text.to_owned(), plain: true }, verbatim: false };
        let vars = config.vars.iter().map(|(name, value)| (name.clone(), var(value.expose()))).collect();
        let placeholders = Placeholders { environment: env, vars };
        read_tree(config, Map::new(), Places::default(), placeholders, Vec::new(), true)
    }

    /// That of `text` alone.
    #[cfg(test)]
    pub(crate) fn from_yaml(text: &str) -> Result<Self, ConfigErrors> {
        assemble_with(&[("<yaml>".to_owned(), text.to_owned())], BTreeMap::new(), |_| ())
    }

    fn finished(self) -> Result<LoadedConfig, ConfigErrors> {
        self.problems.into_result()?;
        Ok(self.loaded)
    }
}

/// A checked configuration that remembers where each value came from.
#[non_exhaustive]
pub struct LoadedConfig {
    /// The values in force.
    pub config: Config,
    effective: Vec<EffectiveValue>,
    places: Places,
    placeholders: Placeholders,
    mistaken: Vec<KeyPath>,
}

impl LoadedConfig {
    /// Takes a configuration made in code, with an environment for `${…}` in listeners' attributes.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, at once.
    pub fn from_config(config: Config, env: BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        Draft::of(config, env).finished()
    }

    /// Replaces `${name}` and `${name:default}` in a text that is not in the file, such as an attribute of
    /// a listener.
    ///
    /// # Errors
    ///
    /// Which name has no value, and how to give it one. Where the text stands is for the caller to add.
    pub fn resolve(&self, text: &str) -> Result<String, Problem> {
        let scalar = Scalar { text: text.to_owned(), plain: true };
        let resolved = self.placeholders.resolve(&scalar).map_err(|error| error.problem)?;
        Ok(resolved.text)
    }

    /// Where a key or section was set: `place_of("groups.bulk")` is `rocketmq.yaml:33`, or names an
    /// environment variable. `None`: nowhere.
    pub fn place_of(&self, key: &str) -> Option<String> {
        let path = self.places.marks.keys().find(|path| !path.is_empty() && path.join(".") == key)?;
        self.places.source(path)
    }

    /// Whether the value of a key is what the file means: there is no mistake in it, nor in what it stands in. What follows
    /// from any other value is nobody's mistake.
    pub(crate) fn is_sound(&self, key: &[&str]) -> bool {
        let holds = |mistaken: &KeyPath| {
            mistaken.iter().map(String::as_str).eq(key.iter().take(mistaken.len()).copied())
        };
        !self.mistaken.iter().any(holds)
    }

    /// Every key with the value in force and who said so, in the order of the documentation; secrets are
    /// `***`. Each prints as `groups.orders.batch = 200  # rocketmq.yaml:33`.
    pub fn effective(&self) -> &[EffectiveValue] {
        &self.effective
    }
}

/// Without the environment and the files, which hold passwords.
impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedConfig").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Reads one text that calls itself `name`.
pub(super) fn from_text(
    name: &str,
    text: &str,
    env: BTreeMap<String, String>,
) -> Result<LoadedConfig, ConfigErrors> {
    assemble(&[(name.to_owned(), text.to_owned())], env)
}

/// Reads files, weakest first, and the environment over them.
pub(super) fn assemble(
    files: &[(String, String)],
    env: BTreeMap<String, String>,
) -> Result<LoadedConfig, ConfigErrors> {
    assemble_with(files, env, |_| ())?.finished()
}

fn assemble_with(
    files: &[(String, String)],
    env: BTreeMap<String, String>,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<Draft, ConfigErrors> {
    let mut problems = Vec::new();
    let mut places = Places::default();
    let mut tree = Map::new();
    let (documents, broken): (Vec<_>, Vec<_>) = files
        .iter()
        .enumerate()
        .map(|(number, (name, text))| Document::parse(name, text, number))
        .partition(Result::is_ok);
    // Half of the layers would only give follow-up mistakes.
    broken.into_iter().filter_map(Result::err).collect::<ConfigErrors>().into_result()?;
    for mut document in documents.into_iter().flatten() {
        keep_sections(&mut document.root, &tree);
        tree = merge(tree, document.root)?;
        places.files.push(document.source);
        places.marks.extend(document.marks);
        places.unclear.extend(document.unclear);
        problems.extend(document.problems);
    }
    let (settings, in_vain) = environment::settings(&env, &tree);
    problems.extend(in_vain);
    for setting in settings {
        let leaf = Value::from(setting.value);
        let table =
            setting.path.iter().rev().fold(leaf, |value, key| Map::from([(key.clone(), value)]).into());
        if let ValueKind::Table(table) = table.kind {
            tree = merge(tree, table)?;
        }
        places.marks.insert(setting.path, Mark::Environment { variable: setting.variable });
    }
    change(&mut tree);
    let placeholders = Placeholders { environment: env, vars: vars(&tree, &places) };
    Ok(read_tree(Config::default(), tree, places, placeholders, problems, false))
}

fn read_tree(
    mut config: Config,
    tree: Map<String, Value>,
    places: Places,
    placeholders: Placeholders,
    problems: Vec<Problem>,
    by_hand: bool,
) -> Draft {
    let mut reader = Reader::new(&places, &placeholders, by_hand);
    reader.root(tree, |keys| config.read(keys));
    let Reader { problems: found, effective, mistaken, .. } = reader;
    let mistaken = mistaken.into_iter().chain(places.unclear.iter().cloned()).collect();
    let mut problems: ConfigErrors = problems.into_iter().chain(found).collect();
    problems.sort();
    Draft { loaded: LoadedConfig { config, effective, places, placeholders, mistaken }, problems }
}

/// One layer for the `config` crate. It would read dots in the keys of the topmost level as paths, so the
/// whole tree goes under one key.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

const ROOT: &str = "root";

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(Map::from([(ROOT.to_owned(), self.0.clone().into())]))
    }
}

/// Tables are merged key by key; of everything else the upper one stays.
fn merge(below: Map<String, Value>, above: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    let layers = ::config::Config::builder().add_source(Layer(below)).add_source(Layer(above));
    let merged = layers.build().and_then(|merged| merged.get_table(ROOT));
    merged.map_err(|error| Problem::new(format!("the layers cannot be merged: {error}")))
}

/// `client:` with all its keys commented out says nothing, and so must not remove the `client` of the
/// layer below.
fn keep_sections(above: &mut Map<String, Value>, below: &Map<String, Value>) {
    above.retain(|key, value| {
        let Some(ValueKind::Table(below)) = below.get(key).map(|value| &value.kind) else { return true };
        match &mut value.kind {
            ValueKind::Table(above) => {
                keep_sections(above, below);
                true
            }
            ValueKind::String(text) => !is_null(text),
            _ => true,
        }
    });
}

fn vars(tree: &Map<String, Value>, places: &Places) -> BTreeMap<String, Var> {
    let Some(ValueKind::Table(vars)) = tree.get("vars").map(|value| &value.kind) else {
        return BTreeMap::new();
    };
    let var = |(name, value): (&String, &Value)| {
        let ValueKind::String(text) = &value.kind else { return None };
        let path = ["vars".to_owned(), name.clone()];
        let scalar = Scalar { text: text.clone(), plain: places.is_plain(&path) };
        Some((name.clone(), Var { scalar, verbatim: places.is_environment(&path) }))
    };
    vars.iter().filter_map(var).collect()
}

fn read(file: &Path) -> Result<String, Problem> {
    fs::read_to_string(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let folder = env::current_dir().map(|folder| folder.display().to_string()).unwrap_or_default();
            Problem::new("there is no such file")
                .at(file.display().to_string())
                .detail(format!("looked for it from {folder}"))
                .detail(format!(
                    "name it with the environment variable {FILE_VARIABLE}, or with `App::builder().config(\"…\")`"
                ))
        }
        _ => Problem::new(format!("cannot be read: {error}")).at(file.display().to_string()),
    })
}

fn file_of_profile(file: &Path, profile: &str) -> Result<PathBuf, Problem> {
    // Not a way out of the folder of the file.
    if !profile.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
        return Err(Problem::new(format!("{PROFILE_VARIABLE}: `{profile}` cannot be the name of a profile")));
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().map_or_else(String::new, |ext| format!(".{}", ext.to_string_lossy()));
    Ok(file.with_file_name(format!("{stem}-{profile}{extension}")))
}

fn read_profile(file: &Path, profile: &str) -> Result<String, Problem> {
    fs::read_to_string(file).map_err(|error| {
        let message = format!("the file of profile `{profile}` cannot be read: {error}");
        Problem::new(message)
            .at(file.display().to_string())
            .detail(format!("create it, even if empty, or unset {PROFILE_VARIABLE}"))
    })
}
