//! All that can be asked of a registry, by the names that IAM policies use (Service Authorization Reference, Amazon ECR
//! and Amazon ECR Public), and the few words that people use instead. Used by `policy`, `preset`, and who asks them.

use std::fmt;
use std::str::FromStr;

/// What an action is about, and so what a statement's `Resource` is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One repository.
    Repository,
    /// The registry as a whole: only `*` stands for it.
    Registry,
}

macro_rules! actions {
    ($($variant:ident $name:literal $scope:ident)*) => {
        /// One thing that can be asked. An API operation has the name of its action.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Action {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in policies: `ecr:BatchGetImage`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it is about.
            pub fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope,)* }
            }
        }
    };
}

actions! {
    BatchCheckLayerAvailability "ecr:BatchCheckLayerAvailability" Repository
    BatchDeleteImage "ecr:BatchDeleteImage" Repository
    BatchGetImage "ecr:BatchGetImage" Repository
    BatchGetRepositoryScanningConfiguration "ecr:BatchGetRepositoryScanningConfiguration" Repository
    BatchImportUpstreamImage "ecr:BatchImportUpstreamImage" Repository
    CompleteLayerUpload "ecr:CompleteLayerUpload" Repository
    CreatePullThroughCacheRule "ecr:CreatePullThroughCacheRule" Registry
    CreateRepository "ecr:CreateRepository" Repository
    CreateRepositoryCreationTemplate "ecr:CreateRepositoryCreationTemplate" Registry
    DeleteLifecyclePolicy "ecr:DeleteLifecyclePolicy" Repository
    DeletePullThroughCacheRule "ecr:DeletePullThroughCacheRule" Registry
    DeleteRegistryPolicy "ecr:DeleteRegistryPolicy" Registry
    DeleteRepository "ecr:DeleteRepository" Repository
    DeleteRepositoryCreationTemplate "ecr:DeleteRepositoryCreationTemplate" Registry
    DeleteRepositoryPolicy "ecr:DeleteRepositoryPolicy" Repository
    DeleteSigningConfiguration "ecr:DeleteSigningConfiguration" Registry
    DeregisterPullTimeUpdateExclusion "ecr:DeregisterPullTimeUpdateExclusion" Registry
    DescribeImageReplicationStatus "ecr:DescribeImageReplicationStatus" Repository
    DescribeImageScanFindings "ecr:DescribeImageScanFindings" Repository
    DescribeImageSigningStatus "ecr:DescribeImageSigningStatus" Repository
    DescribeImages "ecr:DescribeImages" Repository
    DescribePullThroughCacheRules "ecr:DescribePullThroughCacheRules" Registry
    DescribeRegistry "ecr:DescribeRegistry" Registry
    DescribeReplicationBackfillResults "ecr:DescribeReplicationBackfillResults" Registry
    DescribeRepositories "ecr:DescribeRepositories" Repository
    DescribeRepositoryCreationTemplates "ecr:DescribeRepositoryCreationTemplates" Registry
    GetAccountSetting "ecr:GetAccountSetting" Registry
    GetAuthorizationToken "ecr:GetAuthorizationToken" Registry
    GetDownloadUrlForLayer "ecr:GetDownloadUrlForLayer" Repository
    GetLifecyclePolicy "ecr:GetLifecyclePolicy" Repository
    GetLifecyclePolicyPreview "ecr:GetLifecyclePolicyPreview" Repository
    GetRegistryPolicy "ecr:GetRegistryPolicy" Registry
    GetRegistryScanningConfiguration "ecr:GetRegistryScanningConfiguration" Registry
    GetRepositoryPolicy "ecr:GetRepositoryPolicy" Repository
    GetSigningConfiguration "ecr:GetSigningConfiguration" Registry
    InitiateLayerUpload "ecr:InitiateLayerUpload" Repository
    ListImageReferrers "ecr:ListImageReferrers" Repository
    ListImages "ecr:ListImages" Repository
    ListPullTimeUpdateExclusions "ecr:ListPullTimeUpdateExclusions" Registry
    ListReplicationBackfills "ecr:ListReplicationBackfills" Registry
    ListTagsForResource "ecr:ListTagsForResource" Repository
    PutAccountSetting "ecr:PutAccountSetting" Registry
    PutImage "ecr:PutImage" Repository
    PutImageScanningConfiguration "ecr:PutImageScanningConfiguration" Repository
    PutImageTagMutability "ecr:PutImageTagMutability" Repository
    PutLifecyclePolicy "ecr:PutLifecyclePolicy" Repository
    PutRegistryPolicy "ecr:PutRegistryPolicy" Registry
    PutRegistryScanningConfiguration "ecr:PutRegistryScanningConfiguration" Registry
    PutReplicationConfiguration "ecr:PutReplicationConfiguration" Registry
    PutSigningConfiguration "ecr:PutSigningConfiguration" Registry
    RegisterPullTimeUpdateExclusion "ecr:RegisterPullTimeUpdateExclusion" Registry
    ReplicateImage "ecr:ReplicateImage" Repository
    SetRepositoryPolicy "ecr:SetRepositoryPolicy" Repository
    StartImageScan "ecr:StartImageScan" Repository
    StartLifecyclePolicyPreview "ecr:StartLifecyclePolicyPreview" Repository
    StartReplicationBackfill "ecr:StartReplicationBackfill" Registry
    StopReplicationBackfill "ecr:StopReplicationBackfill" Registry
    TagResource "ecr:TagResource" Repository
    UntagResource "ecr:UntagResource" Repository
    UpdateImageStorageClass "ecr:UpdateImageStorageClass" Repository
    UpdatePullThroughCacheRule "ecr:UpdatePullThroughCacheRule" Registry
    UpdateRepositoryCreationTemplate "ecr:UpdateRepositoryCreationTemplate" Registry
    UploadLayerPart "ecr:UploadLayerPart" Repository
    ValidatePullThroughCacheRule "ecr:ValidatePullThroughCacheRule" Registry

    PublicBatchCheckLayerAvailability "ecr-public:BatchCheckLayerAvailability" Repository
    PublicBatchDeleteImage "ecr-public:BatchDeleteImage" Repository
    PublicCompleteLayerUpload "ecr-public:CompleteLayerUpload" Repository
    PublicCreateRepository "ecr-public:CreateRepository" Repository
    PublicDeleteRepository "ecr-public:DeleteRepository" Repository
    PublicDeleteRepositoryPolicy "ecr-public:DeleteRepositoryPolicy" Repository
    PublicDescribeImageTags "ecr-public:DescribeImageTags" Repository
    PublicDescribeImages "ecr-public:DescribeImages" Repository
    PublicDescribeRegistries "ecr-public:DescribeRegistries" Registry
    PublicDescribeRepositories "ecr-public:DescribeRepositories" Repository
    PublicGetAuthorizationToken "ecr-public:GetAuthorizationToken" Registry
    PublicGetRegistryCatalogData "ecr-public:GetRegistryCatalogData" Registry
    PublicGetRepositoryCatalogData "ecr-public:GetRepositoryCatalogData" Repository
    PublicGetRepositoryPolicy "ecr-public:GetRepositoryPolicy" Repository
    PublicInitiateLayerUpload "ecr-public:InitiateLayerUpload" Repository
    PublicListTagsForResource "ecr-public:ListTagsForResource" Repository
    PublicPutImage "ecr-public:PutImage" Repository
    PublicPutRegistryCatalogData "ecr-public:PutRegistryCatalogData" Registry
    PublicPutRepositoryCatalogData "ecr-public:PutRepositoryCatalogData" Repository
    PublicSetRepositoryPolicy "ecr-public:SetRepositoryPolicy" Repository
    PublicTagResource "ecr-public:TagResource" Repository
    PublicUntagResource "ecr-public:UntagResource" Repository
    PublicUploadLayerPart "ecr-public:UploadLayerPart" Repository

    AdminRead "wharfinger:AdminRead" Registry
    AdminOperate "wharfinger:AdminOperate" Registry
    AdminContent "wharfinger:AdminContent" Registry
    AdminIdentities "wharfinger:AdminIdentities" Registry
}

impl Action {
    /// Whether it asks for a login to the registry, which only the caller's own policies can grant.
    pub fn is_login(self) -> bool {
        matches!(
            self,
            Self::GetAuthorizationToken | Self::PublicGetAuthorizationToken
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No action of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such action")]
pub struct UnknownAction;

impl FromStr for Action {
    type Err = UnknownAction;

    /// By its whole name, in any case, as in policies.
    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let found = Self::ALL
            .iter()
            .find(|action| action.name().eq_ignore_ascii_case(text));
        found.copied().ok_or(UnknownAction)
    }
}

/// A set of actions, as small as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionSet(u128);

// Each action is one bit.
const _: () = assert!(Action::ALL.len() <= 128);

impl ActionSet {
    /// With this one, too.
    #[must_use]
    pub fn with(self, action: Action) -> Self {
        Self(self.0 | (1 << (action as u8)))
    }

    /// Whether it is in the set.
    pub fn contains(self, action: Action) -> bool {
        self.0 & (1 << (action as u8)) != 0
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// All that are not in the set.
    #[must_use]
    pub fn complement(self) -> Self {
        Action::ALL
            .iter()
            .filter(|action| !self.contains(**action))
            .copied()
            .collect()
    }
}

impl FromIterator<Action> for ActionSet {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::default(), Self::with)
    }
}

/// What people write instead of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// Take images: manifests, blobs, referrers, and the tags of a repository whose name one knows, which is what a
    /// token for `pull` opens at other registries too.
    Pull,
    /// Put images into repositories that exist. Does not include `pull`.
    Push,
    /// Delete images and tags.
    Delete,
    /// See which repositories there are, and what is in them.
    List,
    /// Everything.
    Admin,
}

impl Word {
    /// Every word.
    pub const ALL: &'static [Self] = &[Self::Pull, Self::Push, Self::Delete, Self::List, Self::Admin];

    /// The word itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Admin => "admin",
        }
    }

    /// What it stands for.
    pub fn actions(self) -> &'static [Action] {
        use Action as A;
        match self {
            Self::Pull => &[
                A::BatchGetImage,
                A::GetDownloadUrlForLayer,
                A::BatchCheckLayerAvailability,
                A::BatchImportUpstreamImage,
                A::ListImageReferrers,
                A::ListImages,
                A::GetAuthorizationToken,
                A::PublicGetAuthorizationToken,
                A::PublicBatchCheckLayerAvailability,
            ],
            Self::Push => &[
                A::BatchCheckLayerAvailability,
                A::InitiateLayerUpload,
                A::UploadLayerPart,
                A::CompleteLayerUpload,
                A::PutImage,
                A::GetAuthorizationToken,
                A::PublicGetAuthorizationToken,
                A::PublicBatchCheckLayerAvailability,
                A::PublicInitiateLayerUpload,
                A::PublicUploadLayerPart,
                A::PublicCompleteLayerUpload,
                A::PublicPutImage,
            ],
            Self::Delete => &[A::BatchDeleteImage, A::PublicBatchDeleteImage],
            Self::List => &[
                A::ListImages,
                A::ListImageReferrers,
                A::DescribeImages,
                A::DescribeRepositories,
                A::ListTagsForResource,
                A::PublicDescribeImages,
                A::PublicDescribeImageTags,
                A::PublicDescribeRepositories,
                A::PublicDescribeRegistries,
                A::PublicListTagsForResource,
            ],
            Self::Admin => A::ALL,
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not one of the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected pull, push, delete, list or admin")]
pub struct UnknownWord;

impl FromStr for Word {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let found = Self::ALL.iter().find(|word| word.as_str() == text);
        found.copied().ok_or(UnknownWord)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_those_of_iam_and_each_its_own() {
        let names: BTreeSet<_> = Action::ALL
            .iter()
            .map(|action| action.name().to_ascii_lowercase())
            .collect();
        assert_eq!(names.len(), Action::ALL.len());
        for action in Action::ALL {
            let (service, _) = action.name().split_once(':').unwrap();
            assert!(["ecr", "ecr-public", "wharfinger"].contains(&service), "{action}");
            assert_eq!(action.name().parse(), Ok(*action));
            assert_eq!(action.name().to_uppercase().parse(), Ok(*action));
        }
        // The operations of the API (62), and the two rights that have no operation of their own.
        let of = |service: &str| {
            Action::ALL
                .iter()
                .filter(|a| a.name().starts_with(service))
                .count()
        };
        assert_eq!((of("ecr:"), of("ecr-public:")), (64, 23));
        assert_eq!("ecr:Pull".parse::<Action>(), Err(UnknownAction));
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let pull: ActionSet = Word::Pull.actions().iter().copied().collect();
        for action in Action::ALL {
            assert_eq!(pull.contains(*action), Word::Pull.actions().contains(action));
            assert_ne!(pull.complement().contains(*action), pull.contains(*action));
        }
        let all: ActionSet = Word::Admin.actions().iter().copied().collect();
        assert_eq!(all.complement(), ActionSet::default());
        assert!(all.complement().is_empty() && !pull.is_empty());
        assert_eq!(pull.union(pull.complement()), all);
    }

    #[test]
    fn words_are_what_they_say() {
        for word in Word::ALL {
            assert_eq!(word.to_string().parse(), Ok(*word));
        }
        assert_eq!("Pull".parse::<Word>(), Err(UnknownWord));
        let writes = [
            Action::PutImage,
            Action::InitiateLayerUpload,
            Action::BatchDeleteImage,
        ];
        for word in [Word::Pull, Word::List] {
            assert!(
                writes.iter().all(|action| !word.actions().contains(action)),
                "{word}"
            );
        }
        assert!(!Word::Push.actions().contains(&Action::GetDownloadUrlForLayer));
        assert!(!Word::Push.actions().contains(&Action::BatchDeleteImage));
    }
}
