/**
 * Loaded into a process with `--import`: a message of the parent process can shift `Date`, and can
 * make notifications from PostgreSQL get lost. The product reads the wall clock only as `Date`, and
 * receives notifications only from pg.
 */
import pg from "pg";

export type Meddling = { meddle: { clockMs?: number; losesNotifications?: boolean } };

let offsetMs = 0;
let losesNotifications = false;

const RealDate = Date;
class ShiftedDate extends RealDate {
  constructor(...args: unknown[]) {
    if (args.length === 0) super(RealDate.now() + offsetMs);
    else super(...(args as [number]));
  }
  static override now(): number {
    return RealDate.now() + offsetMs;
  }
}
globalThis.Date = ShiftedDate as DateConstructor;

const { emit } = pg.Client.prototype;
pg.Client.prototype.emit = function (event: string | symbol, ...args: unknown[]): boolean {
  if (event === "notification" && losesNotifications) return true;
  return emit.call(this, event, ...args);
};

process.on("message", ({ meddle }: Partial<Meddling>) => {
  if (meddle?.clockMs !== undefined) offsetMs = meddle.clockMs;
  if (meddle?.losesNotifications !== undefined) losesNotifications = meddle.losesNotifications;
});
// Listening for messages does not keep the process alive.
process.channel?.unref();
