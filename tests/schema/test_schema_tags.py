"""A FeatureService as model inputs: types give roles, tags change them, mistakes name the view and the field."""

import pytest
from tag_mistakes import MISTAKES
from tagged_repository import apply_repository

from mtl_rank.config import ContextOptions, InputOptions
from mtl_rank.errors import ConfigError
from mtl_rank.features.schema import FeatureSchema, read_schema


@pytest.fixture(scope="session")
def schema_of(tmp_path_factory):
    """The schema of a service, with context columns by name. The repository is applied once."""
    store = apply_repository(tmp_path_factory.mktemp("feature_repo"))

    def read(service, **context):
        return read_schema(store, store.get_feature_service(service), context)

    return read


def roles(schema):
    return {spec.name: spec.role for spec in schema.inputs}


def options(schema, name):
    return next(spec for spec in schema.inputs if spec.name == name).options


def test_types_give_roles_and_tags_change_them(schema_of):
    schema = schema_of("everything")
    assert roles(schema) == {
        "user_id": "categorical",
        "item_id": "categorical",
        "profile__city": "categorical",
        "profile__age": "dense",
        "profile__level": "categorical",
        "profile__vip": "categorical",
        "profile__balance": "dense",
        "profile__joined": "categorical",
        "profile__seen": "sequence",
        "profile__words": "bag",
        "facts__brand": "categorical",
        "facts__price": "dense",
        "visit__pages": "dense",
        "everyone__weekday": "categorical",
        "pushed__recent": "categorical",
        "derived__affordable": "dense",
    }
    assert set(schema.join_keys) == {"user_id", "item_id", "session_id"}
    assert schema.request_columns == ("hour",)


def test_tags_become_options(schema_of):
    schema = schema_of("everything")
    assert options(schema, "profile__age") == InputOptions(role="dense", transform="log1p", bins=8)
    assert options(schema, "profile__level") == InputOptions(min_count=3, max_size=100)
    assert options(schema, "profile__seen") == InputOptions(shares="item_id", max_len=7)
    assert options(schema, "profile__words") == InputOptions(role="bag", vocab="hashed", buckets=99)
    assert options(schema, "profile__balance") == InputOptions()
    assert options(schema, "user_id") == InputOptions(dim=8)
    assert options(schema, "item_id") == InputOptions()


def test_origins_name_view_and_field(schema_of):
    origins = {spec.name: spec.origin for spec in schema_of("everything", hour=ContextOptions()).inputs}
    assert origins["profile__age"] == "profile.age"
    assert origins["user_id"] == "entity user"
    assert origins["hour"] == "context.hour"
    assert origins["derived__affordable"] == "derived.affordable"


def test_a_service_of_some_columns_has_those(schema_of):
    schema = schema_of("two_columns")
    assert set(roles(schema)) == {"user_id", "profile__age", "profile__city"}
    assert schema.join_keys == ("user_id",)


def test_a_view_under_two_names_has_two_keys_and_two_sets_of_columns(schema_of):
    schema = schema_of("aliased")
    assert schema.join_keys == ("item_id", "rival_id")
    assert set(roles(schema)) == {
        "item_id",
        "rival_id",
        "facts__brand",
        "facts__price",
        "rival__brand",
        "rival__price",
    }


def test_an_on_demand_view_asks_for_the_keys_of_its_sources(schema_of):
    schema = schema_of("derived_only")
    assert set(schema.join_keys) == {"user_id", "item_id"}
    assert schema.request_columns == ("hour",)
    assert "derived__affordable" in roles(schema)
    assert "profile__balance" not in roles(schema)


def test_context_columns_come_last_with_their_options(schema_of):
    schema = schema_of(
        "two_columns",
        position=ContextOptions(at_scoring=1, min_count=2),
        price=ContextOptions(role="dense", bins=0),
        debug=ContextOptions(role="ignore"),
        friend=ContextOptions(shares="user_id"),
    )
    assert [spec.name for spec in schema.context] == ["position", "price", "friend"]
    assert schema.inputs[-3:] == schema.context
    position = schema.context[0]
    assert (position.role, position.at_scoring) == ("categorical", 1)
    assert position.options == InputOptions(min_count=2)
    assert [spec.name for spec in schema.with_role("dense")] == ["profile__age", "price"]


def test_context_columns_are_checked_like_features(schema_of):
    with pytest.raises(
        ConfigError, match=r"context\.friend: shares='usr_id' is no model input; did you mean 'user_id'"
    ):
        schema_of("two_columns", friend=ContextOptions(shares="usr_id"))
    with pytest.raises(ConfigError, match=r"context\.friend: dim differs from that of 'user_id'"):
        schema_of("two_columns", friend=ContextOptions(shares="user_id", dim=3))
    with pytest.raises(
        ConfigError, match=r"context\.friend: shares='mate', which has no embedding of its own"
    ):
        schema_of("two_columns", friend=ContextOptions(shares="mate"), mate=ContextOptions(shares="user_id"))
    with pytest.raises(ConfigError, match=r"context\.friend: .*'profile__age', which has no embedding"):
        schema_of("two_columns", friend=ContextOptions(shares="profile__age"))


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_a_mistake_in_a_tag_names_the_view_and_the_field(schema_of, name):
    with pytest.raises(ConfigError) as caught:
        schema_of(name)
    message = str(caught.value)
    assert message.startswith(f"{name}.f: ")
    assert MISTAKES[name][2] in message
    assert len(message.splitlines()) == 1


def test_a_join_key_is_no_number(schema_of):
    with pytest.raises(
        ConfigError, match=r"entity query: tag mtlrank\.role=dense: a join key is categorical or"
    ):
        schema_of("dense_key")


def test_a_schema_is_the_same_each_time_and_comes_back_from_json(schema_of):
    schema = schema_of("everything", hour=ContextOptions(at_scoring=12))
    assert schema_of("everything", hour=ContextOptions(at_scoring=12)) == schema
    assert FeatureSchema.model_validate_json(schema.model_dump_json()) == schema
