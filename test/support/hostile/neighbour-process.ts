/**
 * Another user's device, in a separate process: triggers a run, accepts and completes it, again and
 * again. Prints the time from each call to the assignment in milliseconds, or the error, one per
 * line.
 */
import { setTimeout as delay } from "node:timers/promises";
import { connectDevice, createClients, Os } from "@pinion/client";

const { url, token, device, stateDir } = JSON.parse(process.argv[2]!) as {
  url: string;
  token: string;
  device: { deviceId: string; installId: string; token: string };
  stateDir: string;
};
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);
/** Longer, and the neighbour does not get anything done. */
const patienceMs = 20_000;

let assigned: ((at: number) => void) | undefined;
let acknowledged: (() => void) | undefined;
connectDevice({
  url,
  token: device.token,
  installId: device.installId,
  os: Os.LINUX,
  agentKinds: ["test"],
  stateDir,
  onAssignment: async () => {
    assigned?.(performance.now());
    return { outcome: "completed", output: "done" };
  },
  onEvent(event) {
    if (event.type === "acknowledged") acknowledged?.();
  },
});

const { watchers } = createClients({ url, token });
const { watcher } = await watchers.createWatcher({
  spec: { name: `Neighbour ${process.pid}`, prompt: "do it", deviceId: device.deviceId },
});
for (;;) {
  const arrival = new Promise<number>((resolve) => {
    assigned = resolve;
  });
  const over = new Promise<void>((resolve) => {
    acknowledged = resolve;
  });
  const startedAt = performance.now();
  try {
    await watchers.triggerWatcher({ watcherId: watcher!.id }, { timeoutMs: patienceMs });
    const at = await Promise.race([arrival, delay(patienceMs)]);
    if (at === undefined) say({ problem: `no assignment within ${patienceMs} ms` });
    else say({ ms: at - startedAt });
    await Promise.race([over, delay(patienceMs)]);
  } catch (error) {
    say({ problem: String(error) });
    await delay(100);
  }
  await delay(5);
}
