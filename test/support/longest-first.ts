/**
 * The order of the test files: the longest first, so that no worker begins a long file while the
 * others have nothing left. Vitest knows the times of this machine's last run; a fresh checkout has
 * this list.
 */
import type { TestSpecification } from "vitest/node";
import { BaseSequencer } from "vitest/node";

/** Files of more than some 5 s, by falling time. `.ci/run` prints the times. */
const longest = [
  "e2e/install/upgrade.slow",
  // The first run of a checkout builds the example in Go.
  "e2e/examples/daemons.slow",
  "chaos/short.slow",
  "integration/agents/crashes.slow",
  "integration/server/cluster/org-move.slow",
  "integration/invariants/sqlstates.slow",
  "integration/agents/presets.slow",
  "e2e/cli/apply.slow",
  "chaos/rolling-deploy.slow",
  "e2e/cli/conformance.slow",
  "e2e/docs",
  "integration/server/device/recorded-ahead",
  "integration/server/cluster/bus-replicas",
  "integration/server/cluster/bus-unreachable.slow",
  "integration/cli/apply",
  "e2e/cli/up",
  "integration/agents/floods.slow",
  "integration/agents/answered.slow",
  "integration/server/http/metrics",
  "e2e/install/package.slow",
  "integration/agents/codex.slow",
  "integration/agents/claude.slow",
  "e2e/page/long-lists.slow",
  "e2e/agents.slow",
  "e2e/cli/up-misconfigured.slow",
  "e2e/agents",
  "integration/server/device/device-stream",
  "e2e/page/org",
  "integration/server/rpc/groups",
  "e2e/page/reconnect.slow",
  "e2e/crash",
  "e2e/crash.slow",
  "e2e/page/look.slow",
  "integration/server/platforms/platforms",
  "integration/server/cluster/bus",
  "integration/server/platforms/platform-kinds",
  "e2e/example-chat",
  "integration/server/access/second-person",
  "integration/server/device/failover-acknowledgement.slow",
  "integration/server/device/fleet-worker",
  "e2e/install/server-gives-daemon.slow",
  "integration/server/rpc/selectors",
  "e2e/page/answer",
  "integration/server/rpc/bulks",
  "integration/server/access/limits",
  "e2e/page/run",
  "integration/scheduler/clock-jump",
  "integration/server/http/buf-curl.slow",
  "integration/client/runner",
  "integration/server/cluster/cells",
  "e2e/client/package.slow",
  "integration/client/confinement",
  "integration/store/embedded.slow",
  "e2e/worker",
  "e2e/page/home",
  "integration/server/rpc/orgs",
  "integration/server/access/bad-input",
  "e2e/page/sign-in",
  "e2e/turns.slow",
  "integration/server/device/not-listed",
  "property/schedule-slots",
  "e2e/image.slow",
  "e2e/page/documentation.slow",
  "integration/server/access/identities",
  "e2e/page/fleet",
  "integration/server/access/every-rpc",
  "integration/agents/egress.slow",
  "integration/scheduler/reaper",
  "integration/server/device/slow-reader.connect",
  "integration/server/http/traces",
  "integration/server/platforms/platform-chat",
  "e2e/page/base-path",
  "integration/store/listener",
  "integration/cli/agents",
  "e2e/page/watchers",
  "integration/agents/acp.slow",
  "property/interleavings",
  "integration/invariants/late-results",
  "integration/server/rpc/events",
  "integration/scheduler/retention",
  "e2e/cli/first-token.slow",
  "integration/cli/terminal",
  "integration/agents/workspaces",
  "property/completions",
  "e2e/agents-mcp.slow",
  "integration/server/database/database-outage",
  "integration/server/hostile/log-lines",
  "property/settlement",
  "e2e/delivery-killed.slow",
  "integration/server/http/probes",
  "integration/cli/doctor",
  "e2e/agents-replica-killed.slow",
  "integration/server/access/ownership",
  "integration/cli/contexts",
  "e2e/page/streams",
  "integration/server/device/slow-reader",
  "integration/server/destinations/deliveries",
  "integration/server/rpc/turns",
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
