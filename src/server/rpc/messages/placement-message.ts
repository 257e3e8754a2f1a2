/** How the runs of a watcher find their device, between the fields of a spec and the store. */
import { create } from "@bufbuild/protobuf";
import {
  ConcurrencyGroupSchema,
  GroupScope,
  RateLimitSchema,
  SpreadMode,
  type WatcherSpec,
} from "#gen/pinion/v1/watcher_pb.js";
import { selectorProblem } from "../../../cel/selector.ts";
import { refuse } from "../../../errors.ts";
import type { Placement } from "../../../store/work/watchers/watcher-values.ts";

type PlacementFields = Pick<WatcherSpec, "selector" | "spread" | "priority"> &
  Partial<Pick<WatcherSpec, "group" | "rateLimit">>;

export function placementMessage(placement: Placement | null): PlacementFields {
  const { selector = "", spread, group, priority = 0, rate } = placement ?? {};
  return {
    ...{ selector, priority },
    // The default as an explicit value, for specs with a selector.
    spread: spread === "all" ? SpreadMode.ALL : selector === "" ? SpreadMode.UNSPECIFIED : SpreadMode.ONE,
    ...(group
      ? {
          group: create(ConcurrencyGroupSchema, {
            ...{ name: group.name, max: group.max },
            scope: group.per === "device" ? GroupScope.DEVICE : GroupScope.ORG,
          }),
        }
      : {}),
    ...(rate ? { rateLimit: create(RateLimitSchema, { key: rate.key, perMinute: rate.perMinute }) } : {}),
  };
}

/**
 * The placement of a spec; null: its runs need no placement. Refuses with `invalid_argument` an
 * invalid selector, and fields that exclude each other.
 */
export function placementOf(spec: WatcherSpec): Placement | null {
  const selector = spec.selector.trim();
  const { group, rateLimit, priority } = spec;
  const isSpread = spec.spread === SpreadMode.ALL;
  if (selector !== "") {
    const problem = selectorProblem(selector);
    if (problem) wrong("selector", problem);
    if (spec.deviceId !== "") {
      wrong(
        "selector",
        "a watcher is pinned to a device or selects devices, and not both; leave one of them empty",
      );
    }
  }
  if (isSpread && selector === "")
    wrong("spread", "needs a selector: without one there is nothing to spread over");
  if (group?.scope === GroupScope.DEVICE && selector === "" && spec.deviceId === "") {
    wrong(
      "group",
      "counts per device, and needs a device or a selector: a fleet worker is not known beforehand",
    );
  }
  if (priority !== 0 && selector === "" && !group && !rateLimit) {
    wrong(
      "priority",
      "orders what waits for a selector, a group or a rate limit; give the watcher one of these",
    );
  }
  const placement: Placement = {
    ...(selector === "" ? {} : { selector }),
    ...(isSpread ? { spread: "all" } : {}),
    ...(group
      ? {
          group: {
            name: group.name,
            max: group.max || 1,
            per: group.scope === GroupScope.DEVICE ? "device" : "org",
          },
        }
      : {}),
    ...(priority === 0 ? {} : { priority }),
    ...(rateLimit ? { rate: { key: rateLimit.key, perMinute: rateLimit.perMinute } } : {}),
  };
  return Object.keys(placement).length === 0 ? null : placement;
}

function wrong(name: string, problem: string): never {
  const field = `spec.${name}`;
  refuse("invalid_argument", `${field}: ${problem}`, { field });
}
