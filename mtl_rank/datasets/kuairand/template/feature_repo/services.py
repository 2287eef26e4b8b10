"""The sets of features a model can be trained on."""

from activity import user_activity_daily, user_activity_live, video_activity_daily, video_activity_live
from feast import FeatureService
from history import user_history, user_history_priors, user_tag_priors, video_history_priors
from profiles import user_profile, video_facts

PROFILE_AND_HISTORY = [
    user_profile,
    video_facts,
    user_history,
    user_history_priors,
    video_history_priors,
    user_tag_priors,
]

ranking_live_v1 = FeatureService(
    name="ranking_live_v1",
    features=[*PROFILE_AND_HISTORY, user_activity_live, video_activity_live],
    owner="kuairand",
    description="Profile, history, and activity counts up to the impression itself.",
)

ranking_frozen_v1 = FeatureService(
    name="ranking_frozen_v1",
    features=[*PROFILE_AND_HISTORY, user_activity_daily, video_activity_daily],
    owner="kuairand",
    description="Profile, history, and activity counts before today.",
)

ranking_mixed_v1 = FeatureService(
    name="ranking_mixed_v1",
    features=[*PROFILE_AND_HISTORY, user_activity_daily, video_activity_live],
    owner="kuairand",
    description="Profile, history, the user's counts before today and the video's up to the impression itself.",
)
