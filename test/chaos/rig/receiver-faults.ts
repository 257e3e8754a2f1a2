import type { FaultKind } from "../plan.ts";
import type { Rig } from "./rig.ts";
import type { Behaviour } from "./traffic.ts";

/** Faults of the receiver of messages, as strikes; a rig without traffic has no receiver. */
export const receiverStrikes = {
  receiver_down: (rig: Rig) => strike(rig, "down"),
  receiver_slow: (rig: Rig) => strike(rig, "slow"),
  receiver_errors: (rig: Rig) => strike(rig, "errors"),
} satisfies Partial<{ [Kind in FaultKind]: unknown }>;

function strike({ traffic }: Rig, how: Behaviour) {
  return (
    traffic && {
      targets: ["the receiver"],
      begin: () => traffic.behave(how),
      end: () => traffic.behave("well"),
    }
  );
}
