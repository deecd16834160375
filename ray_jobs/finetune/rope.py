"""The planner's fixed address, `ray_jobs.finetune.rope.plan_rope`; its code is in `tasks.model.rope_plan`."""

from tasks.model.rope_plan import RopePlan as RopePlan
from tasks.model.rope_plan import plan_rope as plan_rope
