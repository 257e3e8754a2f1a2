/**
 * The order of the test files: the longest first, so that no worker begins a long file while the
 * others have nothing left. Vitest knows the times of this machine's last run; a fresh checkout has
 * this list.
 */
import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";

/** Files of more than some 5 s, by falling time. `.ci/run` prints the times. */
const longest = [
  "integration/agents/crashes",
  "chaos/short",
  "e2e/docs",
  "integration/server/bus-replicas",
  "integration/server/org-move",
  "integration/cli/apply",
  "integration/agents/floods",
  "integration/agents/claude",
  "integration/agents/presets",
  "e2e/cli/apply",
  "e2e/cli/up",
  "chaos/rolling-deploy",
  "e2e/cli/conformance",
  "integration/server/metrics",
  "e2e/agents",
  "integration/server/recorded-ahead",
  "integration/server/fleet-worker",
  "e2e/crash",
  "e2e/install/upgrade",
  "integration/agents/codex",
  "e2e/page/run",
  "e2e/turns",
  "e2e/page/org",
  "integration/server/groups",
  "e2e/page/reconnect",
  "integration/server/device-stream",
  "e2e/page/sign-in",
  "e2e/example-chat",
  "integration/server/bad-input",
  "e2e/page/long-lists",
  "integration/server/platforms",
  "e2e/page/answer",
  "integration/server/limits",
  "e2e/install/server-gives-daemon",
  "integration/server/selectors",
  "integration/server/bus",
  "e2e/page/home",
  "integration/client/runner",
  "integration/store/embedded",
  "e2e/page/look",
  "integration/scheduler/clock-jump",
  "integration/server/every-rpc",
  "e2e/client/package",
  "e2e/worker",
  "integration/server/orgs",
  "integration/server/identities",
  "e2e/delivery-killed",
  "integration/server/deliveries",
  "integration/server/buf-curl",
  "e2e/page/documentation",
  "e2e/page/fleet",
  "integration/server/cells",
  "integration/server/probes",
  "integration/server/not-listed",
  "integration/server/audit",
  "e2e/agents-mcp",
  "property/schedule-slots",
  "integration/server/traces",
  "integration/cli/agents",
  "integration/scheduler/reaper",
  "e2e/image",
  "e2e/backup",
  "integration/server/database-outage",
  "e2e/page/streams",
  "integration/server/ownership",
  "e2e/agents-replica-killed",
  "integration/server/slow-reader.connect",
  "integration/server/platform-chat",
  "integration/store/listener",
  "e2e/page/watchers",
  "integration/server/bulks",
  "integration/cli/terminal",
  "integration/agents/egress",
  "integration/server/events",
  "integration/invariants/one-reply",
  "property/interleavings",
  "integration/agents/acp",
  "integration/server/sweep",
  "integration/invariants/late-results",
  "e2e/page/base-path",
  "integration/cli/doctor",
  "e2e/install/package",
  "integration/agents/workspaces",
  "property/settlement",
  "integration/server/turns",
  "integration/server/pgbouncer",
  "integration/cli/contexts",
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
