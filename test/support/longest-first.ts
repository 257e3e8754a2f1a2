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
  "e2e/cli/apply",
  "integration/agents/crashes",
  "integration/agents/claude",
  "integration/server/bus-replicas",
  "e2e/page/look",
  "e2e/page/answer",
  "integration/store/embedded",
  "e2e/page/org",
  "e2e/cli/up",
  "e2e/page/sign-in",
  "chaos/rolling-deploy",
  "integration/agents/floods",
  "e2e/page/home",
  "integration/cli/apply",
  "e2e/page/watchers",
  "e2e/page/fleet",
  "e2e/agents",
  "e2e/docs",
  "e2e/page/documentation",
  "e2e/page/run",
  "e2e/cli/conformance",
  "integration/server/fleet-worker",
  "integration/server/recorded-ahead",
  "integration/agents/presets",
  "integration/agents/codex",
  "integration/server/device-stream",
  "integration/server/metrics",
  "e2e/crash",
  "e2e/install/server-gives-daemon",
  "integration/server/limits",
  "e2e/page/reconnect",
  "integration/server/orgs",
  "e2e/page/streams",
  "integration/server/identities",
  "integration/server/platforms",
  "e2e/install/upgrade",
  "integration/server/bad-input",
  "e2e/turns",
  "e2e/example-chat",
  "property/schedule-slots",
  "e2e/page/base-path",
  "e2e/agents-mcp",
  "e2e/client/package",
  "e2e/delivery-killed",
  "integration/server/every-rpc",
  "e2e/worker",
  "e2e/backup",
  "e2e/page/bulk",
  "integration/scheduler/clock-jump",
  "e2e/image",
  "integration/client/runner",
  "integration/server/buf-curl",
  "e2e/agents-replica-killed",
  "integration/server/selectors",
  "integration/server/traces",
  "integration/server/platform-chat",
  "e2e/install/package",
  "integration/cli/agents",
  "integration/server/deliveries",
  "integration/server/ownership",
  "integration/server/audit",
  "integration/cli/terminal",
  "e2e/cli/first-token",
  "e2e/page/plain-http",
  "integration/server/turns",
  "integration/server/wire",
  "integration/server/bus",
  "integration/cli/doctor",
  "e2e/survival",
  "integration/server/hostile/log-lines",
  "integration/server/bulks",
  "e2e/page/hooks",
  "integration/server/database-outage",
  "integration/server/pgbouncer",
  "integration/invariants/late-results",
  "integration/scheduler/reaper",
  "integration/agents/egress",
  "integration/server/questions",
  "integration/server/platform-kinds",
  "e2e/",
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
    const byTime = (a: TestSpecification, b: TestSpecification) =>
      known ? (this.#timeOf(b) ?? 0) - (this.#timeOf(a) ?? 0) : 0;
    return files.toSorted((a, b) => inOrder(a) - inOrder(b) || byTime(a, b) || rankOf(a) - rankOf(b));
  }

  #timeOf(file: TestSpecification): number | undefined {
    return this.ctx.cache.getTestSpecificationResult(file)?.duration;
  }
}

/** The short unit tests come last, together: a worker changes its project by starting again. */
function inOrder({ project }: TestSpecification): number {
  return project.name === "unit" ? 1 : 0;
}
