import { pastAttemptsMax, type RunRow } from "../rows.ts";
import { mayBeUndone } from "./losses.ts";
import { linesOf, namesOf, type Violation, type World } from "./world.ts";

/**
 * R4 and R6: no message and no answer is about another tenant's or another device's. A run that is
 * pinned to no device is of every fleet worker of its org, and of no other device.
 */
export function checkTenancy(world: World): Violation | undefined {
  const rule = "nothing crosses a tenant or a device";
  const { isUndone } = world;
  const watchers = new Map(world.rows.watchers.map((watcher) => [watcher.id, watcher]));
  const workers = new Set(world.rows.devices.flatMap(({ id, isWorker }) => (isWorker ? [id] : [])));
  const isOf = (device: string, run: RunRow) => {
    if (run.org !== world.orgOfDevice.get(device)) return false;
    return watchers.get(run.watcher)?.device === null ? workers.has(device) : run.device === device;
  };
  for (const { at, device, message } of world.seen) {
    const lines = (run?: string) => linesOf(world, run ? { run } : { device, from: at - 5_000, to: at });
    if (message.case === "welcome" && message.deviceId !== device) {
      return { rule, what: `device ${device} was welcomed as ${message.deviceId}`, lines: lines() };
    }
    for (const { run: id, token } of namesOf(message)) {
      const run = world.runs.get(id);
      if (!run && isUndone(id)) continue;
      if (!run) return { rule, what: `device ${device} saw run ${id}, which does not exist`, lines: lines() };
      if (!isOf(device, run)) {
        const what = `device ${device} saw a ${message.case} of run ${id}, which is of device ${run.device} in ${run.org}`;
        return { rule, what, lines: lines(id) };
      }
      if (!world.attempts.has(token) && run.past.length < pastAttemptsMax && !isUndone(token)) {
        const what = `device ${device} saw the attempt ${token} of run ${id}, which the database does not know`;
        return { rule, what, lines: lines(id) };
      }
    }
    if (message.case !== "assignment") continue;
    const watcher = watchers.get(message.watcher);
    // The prompts of the rig name their device.
    const isMeant =
      watcher?.device === null || (watcher?.device === device && message.prompt.includes(device));
    if (message.deviceId !== device || !isMeant) {
      const what = `device ${device} was given work of watcher ${message.watcher}, meant for ${message.deviceId}: ${message.prompt}`;
      return { rule, what, lines: lines(message.run) };
    }
  }
  for (const { org, request, answer, sentAt, answeredAt } of world.operations) {
    if (mayBeUndone(world, sentAt, answeredAt)) continue;
    for (const id of answer?.runs ?? []) {
      const run = world.runs.get(id);
      if (run?.org === org) continue;
      const what = `${request.method} of ${org} answered run ${id}, which is ${run ? `of ${run.org}` : "not there"}`;
      return { rule, what, lines: linesOf(world, { run: id }) };
    }
  }
  return undefined;
}
