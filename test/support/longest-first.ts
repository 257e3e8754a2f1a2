/**
 * The order of the test files: the longest first, so that no worker begins a long file while the
 * others have nothing left. Vitest knows the times of this machine's last run; a fresh checkout has
 * this list.
 */
import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";

/** Files of more than some 10 s, by falling time. `.ci/run` prints the times. */
const longest = [
  "chaos/short",
  "chaos/rolling-deploy",
  "integration/server/bus-replicas",
  "e2e/cli/apply",
  "e2e/cli/up",
  "e2e/cli/conformance",
  "e2e/docs",
  "e2e/crash",
  "integration/cli/apply",
  "e2e/turns",
  "integration/server/fleet-worker",
  "integration/store/embedded",
  "e2e/page/sign-in",
  "e2e/install/server-gives-daemon",
  "integration/server/recorded-ahead",
  "e2e/page/look",
  "integration/server/metrics",
  "integration/server/limits",
  "integration/server/orgs",
  "integration/server/identities",
  "e2e/page/run",
  "integration/agents/claude",
  "integration/server/device-stream",
  "integration/server/platforms",
  "e2e/agents",
  "property/schedule-slots",
  "integration/agents/crashes",
  "integration/agents/floods",
  "e2e/page/reconnect",
  "integration/agents/codex",
  "e2e/worker",
  "e2e/example-chat",
  "e2e/page/",
  "e2e/",
  "integration/server/selectors",
  "integration/server/bus",
  "integration/server/traces",
  "integration/server/bad-input",
  "integration/server/audit",
  "integration/server/pgbouncer",
  "integration/server/probes",
  "integration/scheduler/clock-jump",
  "property/",
  "integration/invariants/",
  "integration/server/",
  "integration/",
].map((name) => `/test/${name}`);

function rankOf({ moduleId }: TestSpecification): number {
  const rank = longest.findIndex((name) => moduleId.includes(name.endsWith("/") ? name : `${name}.test.`));
  return rank < 0 ? longest.length : rank;
}

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const known = files.some((file) => this.#timeOf(file) !== undefined);
    if (!known) return files.toSorted((a, b) => rankOf(a) - rankOf(b));
    return files.toSorted((a, b) => (this.#timeOf(b) ?? 0) - (this.#timeOf(a) ?? 0) || rankOf(a) - rankOf(b));
  }

  #timeOf(file: TestSpecification): number | undefined {
    return this.ctx.cache.getTestSpecificationResult(file)?.duration;
  }
}
