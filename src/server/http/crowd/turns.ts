/** A queue in which names take turns; the items of one name keep their order. */
export function createTurns<T>() {
  const queues = new Map<string, T[]>();
  let size = 0;
  return {
    get size() {
      return size;
    },
    add(name: string, item: T): void {
      const queue = queues.get(name);
      if (queue) queue.push(item);
      else queues.set(name, [item]);
      size += 1;
    },
    take(): T | undefined {
      const [first] = queues;
      if (!first) return undefined;
      const [name, queue] = first;
      const item = queue.shift();
      queues.delete(name);
      // To the end of the names.
      if (queue.length > 0) queues.set(name, queue);
      size -= 1;
      return item;
    },
  };
}
