/** Compressed qcow2 images, made and read: what is measured of them. */
import { join } from 'node:path';
import { makeHalfProgram, packedByPeer } from './images.mjs';

/**
 * `program` makes both sides of a case of copies: options, formats and files. The data are those of a program, of which
 * about a third is left; half of the disk is holes.
 */
export function compressCases(folder, fileSystem, megabytes, program) {
  const place = `${megabytes} MiB, ${fileSystem}`;
  const raw = () => makeHalfProgram(join(folder, 'program.raw'), megabytes);
  const out = join(folder, 'out');
  const pack = (type, ...more) => ({
    name: `convert -c${more.map((word) => ` ${word}`).join('')} raw to qcow2, ${type}, ${place}`,
    make: () =>
      program(
        ['convert', '-c', ...more, '-f', 'raw', '-O', 'qcow2', '-o', `compression_type=${type}`, raw(), out],
        out,
      ),
  });
  const unpack = (type) => ({
    name: `convert compressed qcow2 to raw, ${type}, ${place}`,
    make() {
      const packed = packedByPeer(raw(), join(folder, `program-${type}.qcow2`), type);
      return program(['convert', '-f', 'qcow2', '-O', 'raw', packed, out], out);
    },
  });
  return [pack('zlib'), pack('zlib', '-W'), pack('zstd'), pack('zstd', '-W'), unpack('zlib'), unpack('zstd')];
}
