"""From a pretrained M0 to M1: IFT, EFT, SFT on both (Yuan et al., sections 2.1 and 3.1.1)."""

from rewardloop.config import Bootstrap
from rewardloop.errors import NoExamples
from rewardloop.records import Phase, Purpose, Stage
from rewardloop.store import eft, ift, iterations, outbox, ranked, training
from services.worker.steps import Step, Steps, health_modes


class Bootstrapping(Steps):
    def _steps(self) -> dict[Phase, Step]:
        return super()._steps() | {
            Phase.TRAIN_BASELINE: self._train_baseline,
            Phase.SWAP_BASELINE: self._swap_baseline,
            Phase.JUDGE_RANKED: self._await_judgements,
            Phase.SELECT_EFT: self._select_eft,
        }

    @property
    def _how(self) -> Bootstrap:
        assert self.config.bootstrap is not None
        return self.config.bootstrap

    async def _train_baseline(self) -> bool:
        async with self.store.transaction() as session:
            examples = await ift.examples(session, self.iteration, self.config)
            await training.add(session, self.iteration.id, Stage.BASELINE)
            found = {"num_examples": len(examples)}
            await iterations.add_to_report(session, self.iteration.id, "ift", found)
        return await self._await_training(Stage.BASELINE, Phase.SWAP_BASELINE)

    async def _swap_baseline(self) -> bool:
        """The baseline judges everything: the training part for EFT, the held-out part so
        that later judges have something to be compared with."""
        version = self.iteration.baseline_version_id
        assert version is not None
        await self._serve(version)
        wanted = [(Purpose.EFT, self._how.eft.judging.mode)]
        wanted += [(Purpose.HEALTH, mode) for mode in health_modes(self.config)]
        async with self.store.transaction() as session:
            await ranked.open_assessments(session, self.iteration.id, version, wanted)
            await self._enter(session, Phase.JUDGE_RANKED)
            outbox.add(session, outbox.ASSESS, self.iteration.id)
        return True

    async def _await_judgements(self) -> bool:
        async with self.store.transaction() as session:
            if await ranked.unsettled(session, self.iteration.id):
                return False
            await self._enter(session, Phase.SELECT_EFT)
            return True

    async def _select_eft(self) -> bool:
        async with self.store.transaction() as session:
            report = await eft.select_kept(
                session, self.iteration.id, self._how.eft, self.config.seed
            )
            await iterations.add_to_report(session, self.iteration.id, "eft", report)
            if report["num_kept"]:
                await self._train(session)
                return True
        raise NoExamples(
            f"of {report['num_judgements']} judgements of {report['num_prompts']} ranked prompts "
            f"none could become an EFT example: {report['num_prompts_unjudged']} prompts had a "
            f"response without a parsed score ({report['num_unparsed']}), in "
            f"{report['num_prompts_disagreeing']} the scores never ordered the responses as the "
            "humans did; raise bootstrap.eft.judging.num_judgements, or set "
            "bootstrap.eft.judging.mode to 'constrained'"
        )
