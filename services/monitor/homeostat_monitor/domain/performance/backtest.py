"""Was an estimate right? Withdrawn when it was wrong too often, back when it was right for long."""

from dataclasses import dataclass

# An interval that is missed so often is as good as it says.
_DUE = 0.05
# What is bet on: that it is missed so often.
_WRONG = 0.3
_STAKE = (_WRONG - _DUE) / (_DUE * (1 - _DUE))
# A right estimate is withdrawn once in so many looks, or less often (Ville's inequality for each
# start of the bet).
_ENOUGH = 1000.0
# A look that is missed by so many deviations counts twice.
_FAR = 4.0
_NEAR = 1.959963984540054
# So many looks in a row that were right bring it back.
_RIGHT_AGAIN = 10


@dataclass(slots=True)
class BackTest:
    """Looks at pairs of what was expected and what became true."""

    wealth: float = 1.0
    looks: int = 0
    missed: int = 0
    is_withdrawn: bool = False
    right_in_a_row: int = 0

    def look(self, deviations: float) -> bool:
        """``deviations``: of the truth from what was expected; whether it was withdrawn or has
        come back with this look."""
        is_missed = abs(deviations) > _NEAR
        self.looks += 1
        self.missed += is_missed
        self.right_in_a_row = 0 if is_missed else self.right_in_a_row + 1
        if self.is_withdrawn:
            return self._return()
        factor = 1.0 + _STAKE * (is_missed - _DUE)
        self.wealth = max(self.wealth, 1.0) * factor
        if abs(deviations) > _FAR:
            self.wealth *= factor
        self.is_withdrawn = self.wealth >= _ENOUGH
        return self.is_withdrawn

    def _return(self) -> bool:
        if self.right_in_a_row < _RIGHT_AGAIN:
            return False
        self.is_withdrawn, self.wealth = False, 1.0
        return True
