"""Control tasks: environments, advantages, actor-critic networks as stacks, and the loop that trains them."""
