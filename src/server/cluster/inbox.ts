import type { Logger } from "../../telemetry/log.ts";
import type { BusHandlers, BusMessage } from "./bus.ts";

/** A reader of the messages of other replicas. */
export type InboxReader = {
  /** Takes a message; false leaves the message to the next reader. */
  receive?(message: BusMessage): boolean;
  /** Messages may have been missed: look at the database. */
  onResync?(): void;
};

/**
 * The receiver of the bus: the readers, in the order of `add`. The bus opens before its readers
 * exist; a message that arrives before them is lost, and the first sweep finds its work. A reader
 * that throws loses its message alone: the bus and the other messages go on.
 */
export type Inbox = BusHandlers & { add(reader: InboxReader): void };

export function createInbox({ log }: { log: Logger }): Inbox {
  const readers: InboxReader[] = [];
  return {
    add: (reader) => void readers.push(reader),
    onMessage(message) {
      try {
        readers.some((reader) => reader.receive?.(message));
      } catch (error) {
        log.error({ err: error, kind: message.kind }, "a message of another replica could not be taken");
      }
    },
    onResync() {
      for (const reader of readers) {
        try {
          reader.onResync?.();
        } catch (error) {
          log.error({ err: error }, "a reader of the bus could not look at the database again");
        }
      }
    },
  };
}
