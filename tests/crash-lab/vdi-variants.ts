/** Drivers that are wrong on purpose: the VDI driver with one thing changed. */

export interface Variant {
  readonly name: string;
  /** Below src/formats/vdi. */
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

export const VARIANTS: readonly Variant[] = [
  {
    name: 'the map is not held back until the data are durable',
    file: 'write-back.ts',
    from: 'await extendFile(image);\n    await file.flush();',
    to: 'await extendFile(image);',
  },
  {
    name: 'the map is not held back until the raised count is durable',
    file: 'write-back.ts',
    from: 'await writeHeader(image, count);\n      await file.flush();',
    to: 'await writeHeader(image, count);',
  },
  {
    name: 'a flush ends before the map is durable',
    file: 'write-back.ts',
    from: 'ENTRY_BYTES, bytes)));\n      await file.flush();',
    to: 'ENTRY_BYTES, bytes)));',
  },
  {
    name: 'a lowered count is one too low',
    file: 'write-back.ts',
    from: 'await writeHeader(image, image.slots.end);',
    to: 'await writeHeader(image, image.slots.end - 1);',
  },
  {
    name: 'the map is copied when it is written, not when the flush begins',
    file: 'write-back.ts',
    from: 'pieces.map(({ from, bytes }) => write(mapOffset + from * ENTRY_BYTES, bytes))',
    to: 'ranges.map(({ from, to }) => write(mapOffset + from * ENTRY_BYTES, mapBytes(image.map, from, to)))',
  },
  {
    name: 'the map is written one entry too far',
    file: 'write-back.ts',
    from: '=> write(mapOffset + from * ENTRY_BYTES, bytes)',
    to: '=> write(mapOffset + (from + 1) * ENTRY_BYTES, bytes)',
  },
  {
    name: 'the last entry of a changed part of the map is not written',
    file: 'write-back.ts',
    from: 'bytes: mapBytes(image.map, from, to)',
    to: 'bytes: mapBytes(image.map, from, to - 1)',
  },
  {
    name: 'a flush does not see that the map has changed',
    file: 'write-back.ts',
    from: 'return dirtyPages.any || headerDirty || slots.pending > 0;',
    to: 'return (dirtyPages.any && slots.pending > 0) || headerDirty;',
  },
  {
    name: 'two writes to one new block both give it a place',
    file: 'write.ts',
    from: 'if (other !== undefined) return other;',
    to: 'if (other === null) return other;',
  },
  {
    name: 'a place that was given up is used again before the map without it is durable',
    file: 'clear.ts',
    from: 'image.slots.release(slot);',
    to: 'image.slots.giveBack(slot);',
  },
  {
    name: 'what surrounds a part of a new block is not cleared',
    file: 'copy-up.ts',
    from: 'if (run.fresh) return;',
    to: 'if (!image.isStatic) return;',
  },
  {
    name: 'a new block is named before it is written',
    file: 'allocate.ts',
    from: 'for (let i = 0; i < count; i++) image.allocating.set(firstBlock + i, ended);',
    to: 'for (let i = 0; i < count; i++) image.setEntry(firstBlock + i, firstSlot + i);',
  },
];
