"""What the shop knows things about."""

from feast import Entity, ValueType

user = Entity(
    name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="A customer with an account."
)
item = Entity(
    name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="A product on sale."
)
category = Entity(
    name="category", join_keys=["category_id"], value_type=ValueType.INT64, description="A product category."
)
