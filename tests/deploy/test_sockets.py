"""The socket: ASE's SocketIOCalculator gets the calculator's numbers; i-PI conserves what it should."""

import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ase.io
import ase.units
import numpy as np
import pytest

from equiform.deploy.ase import calculator
from equiform.deploy.predictor import Predictor
from equiform.deploy.sockets import drive
from equiform.errors import UserError


def name_of_socket(tmp_path: Path) -> str:
    return f"equiform-{tmp_path.name}-{time.time_ns()}"


def test_a_server_of_ase_gets_the_numbers_of_the_calculator(crystal, predictor, tmp_path):
    from ase.calculators.socketio import SocketIOCalculator

    model, name, calls = predictor(cutoff=2.2), name_of_socket(tmp_path), []
    client = threading.Thread(target=lambda: calls.append(drive(model, crystal.copy(), unix=name)), daemon=True)
    moved = crystal.copy()
    moved.rattle(0.02, seed=1)
    expected = moved.copy()
    expected.calc = calculator(model)
    with SocketIOCalculator(unixsocket=name, timeout=60) as server:
        client.start()
        moved.calc = server
        energy, forces, stress = moved.get_potential_energy(), moved.get_forces(), moved.get_stress()
    client.join(timeout=60)
    assert calls == [1]
    assert energy == pytest.approx(expected.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(forces, expected.get_forces(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(stress, expected.get_stress(), rtol=0, atol=1e-10)


def test_no_server_is_one_clear_line(cluster, predictor, tmp_path):
    with pytest.raises(UserError, match=r"no server answers at UNIX socket /tmp/ipi_equiform-.*start i-PI first"):
        drive(predictor(), cluster, unix=name_of_socket(tmp_path), patience=0.0)


INPUT = """
<simulation verbosity='low'>
  <output prefix='sim'>
    <properties stride='1' filename='out'> [ step, conserved{{electronvolt}}, potential{{electronvolt}} ] </properties>
  </output>
  <total_steps>{steps}</total_steps>
  <prng><seed>1</seed></prng>
  <ffsocket name='model' mode='unix' pbc='false'><address>{socket}</address></ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'> init.extxyz </file>
      <velocities mode='thermal' units='kelvin'> 50 </velocities>
    </initialize>
    <forces><force forcefield='model'/></forces>
    <ensemble>
      <temperature units='kelvin'> 50 </temperature>
      {pressure}
    </ensemble>
    <motion mode='dynamics'>
      <dynamics mode='{mode}'>
        <timestep units='femtosecond'> 0.1 </timestep>
        {coupling}
      </dynamics>
    </motion>
  </system>
</simulation>
"""
BATH = "<thermostat mode='{kind}'><tau units='femtosecond'> 20 </tau></thermostat>"
PRESSURE = "<pressure units='gigapascal'> {pressure} </pressure>"
BAROSTAT = f"<barostat mode='isotropic'><tau units='femtosecond'> 50 </tau>{BATH.format(kind='langevin')}</barostat>"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "beads", "coupling", "pressure"),
    [
        ("nve", 1, "", ""),
        ("npt", 1, BAROSTAT + BATH.format(kind="langevin"), PRESSURE),
        ("nvt", 4, BATH.format(kind="pile_g"), ""),
    ],
    ids=["nve", "npt", "path-integral"],
)
def test_i_pi_keeps_its_conserved_quantity(mode, beads, coupling, pressure, crystal, predictor, tmp_path):
    if find_spec("ipi") is None:
        pytest.skip("the extra ipi is not installed")
    name, steps = name_of_socket(tmp_path), 20
    ase.io.write(tmp_path / "init.extxyz", crystal)
    model: Predictor = predictor(cutoff=2.2)
    # The crystal's own pressure, so that the barostat need not move it far.
    own = -float(np.trace(model.stress(crystal))) / 3 / ase.units.GPa
    settings: dict[str, Any] = {"mode": mode, "beads": beads, "coupling": coupling, "pressure": pressure.format(pressure=own)}
    (tmp_path / "input.xml").write_text(INPUT.format(steps=steps, socket=name, **settings))
    program = Path(sys.executable).parent / "i-pi"
    with open(tmp_path / "log", "w") as log:
        server = subprocess.Popen([program, "input.xml"], cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
        try:
            calls = drive(model, crystal, unix=name, patience=120.0)
            server.wait(timeout=60)
        finally:
            server.kill()
    assert server.returncode == 0, (tmp_path / "log").read_text()
    assert calls >= steps * beads
    conserved = np.loadtxt(tmp_path / "sim.out", ndmin=2)[:, 1]
    assert len(conserved) == steps + 1
    assert np.ptp(conserved) / len(crystal) / beads < 1e-5  # eV per atom and bead
