"""From M_t to M_t+1: new prompts, roll-out, pairs, DPO (Yuan et al., section 2.3)."""

from dataclasses import asdict

from rewardloop.errors import JudgeCollapsed, NoPairs
from rewardloop.method.agreement import Agreement
from rewardloop.method.judge_health import beside_humans, collapse
from rewardloop.records import Phase
from rewardloop.store import dead_prompts, iterations, outbox, pairs, ranked, rollouts, runs
from services.worker.steps import Step, Steps


class Improving(Steps):
    def _steps(self) -> dict[Phase, Step]:
        return super()._steps() | {
            Phase.PROMPT_MODEL: self._serve_prompt_model,
            Phase.PROMPTS: self._await_prompts,
            Phase.PREPARE: self._prepare,
            Phase.ROLLOUT: self._await_rollout,
            Phase.PAIRING: self._pair,
        }

    async def _serve_prompt_model(self) -> bool:
        """The prompt model is fixed: an upstream of its own, or the run's base version."""
        name, is_own = self.settings.prompt_upstream_model, True
        if self.settings.prompt_upstream_url is None:
            async with self.store.transaction() as session:
                run = await runs.get(session, self.iteration.run_id)
            name, is_own = run.base_version_id, False
            await self._serve(name)
        async with self.store.transaction() as session:
            found = {"name": name, "is_own": is_own}
            await iterations.add_to_report(session, self.iteration.id, "prompt_model", found)
            await self._enter(session, Phase.PROMPTS)
            outbox.add(session, outbox.PROMPTS, self.iteration.id)
        return True

    async def _await_prompts(self) -> bool:
        async with self.store.transaction() as session:
            if "prompts" not in self.iteration.report:
                return False
            await self._enter(session, Phase.PREPARE)
            return True

    async def _prepare(self) -> bool:
        assert self.iteration.base_version_id is not None
        await self._serve(self.iteration.base_version_id)
        async with self.store.transaction() as session:
            await self._enter(session, Phase.ROLLOUT)
            num_tasks = await rollouts.num_wanted(session, self.config.rollout.num_tasks)
            outbox.add(session, outbox.ROLLOUT, self.iteration.id, times=num_tasks)
        return True

    async def _await_rollout(self) -> bool:
        async with self.store.transaction() as session:
            # Locked first: a dead prompt may be put back while it is looked.
            current = await iterations.locked(session, self.iteration)
            if not await rollouts.is_complete(session, self.iteration.id):
                return False
            left_out = await dead_prompts.require_few(session, self.iteration, self.config.rollout)
            if left_out is not None:
                await iterations.add_to_report(session, self.iteration.id, "dead_prompts", left_out)
            if current.trains_version_id is not None:
                await self._enter(session, Phase.PAIRING)
                return True
            if current.wish is not None:
                return False  # it stops first
            await self._observe(session, current.phase)
            await iterations.wait_for_version(session, current)
            return True

    async def _pair(self) -> bool:
        await self._check_health()
        async with self.store.transaction() as session:
            report = await pairs.build(session, self.iteration, self.config.pairing)
            await iterations.add_to_report(session, self.iteration.id, "pairing", report)
            if report["num_pairs"]:
                await self._train(session)
                return True
        told = ", ".join(f"{count} {why}" for why, count in report["unpaired"].items())
        raise NoPairs(
            f"no prompt gave a preference pair ({told or 'there is no prompt'}). See "
            f"GET /v1/iterations/{self.iteration.id}/scores; judge with more samples, another "
            "judge, or judging.mode 'constrained' if scores are missing"
        )

    async def _check_health(self) -> None:
        """
        Raises:
            JudgeCollapsed: a threshold of `health` is passed; the figures are stored.
        """
        assert self.iteration.base_version_id is not None
        async with self.store.transaction() as session:
            rankings = await ranked.ranks_and_lengths(session, self.iteration.run_id)
            found = beside_humans(await pairs.health(session, self.iteration), rankings)
            measured = await ranked.health_of(
                session, self.iteration.base_version_id, self.config.judging.mode
            )
            humans = None if measured is None else Agreement.from_metrics(measured)
            reasons = collapse(found, humans, self.config.health)
            await iterations.add_to_report(
                session, self.iteration.id, "health", {**asdict(found), "collapse": reasons}
            )
        if reasons:
            raise JudgeCollapsed(
                "the judge's scores are not worth training on: " + " ".join(reasons)
            )
